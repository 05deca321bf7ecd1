//! The machine's own apt sources, read so that the lab can use the same Debian archive with other suites.
//! Both formats of sources.list(5): one entry a line (`.list`) and paragraphs (`.sources`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One entry of the machine's sources, binary packages only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// Fields that say which key to trust, as the machine has them (`Signed-By` may be a whole key).
    trust: Vec<(String, String)>,
}

/// The entries the lab needs: Debian's main archive and, if the machine has it, its security archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    main: Source,
    security: Option<Source>,
}

/// Suites to take packages from: of the main archive, and of the security archive where the machine has that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suites {
    main: Vec<String>,
    security: Option<String>,
}

const RELEASES: [&str; 7] = ["bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"];

/// Reads all sources of the apt folder `etc` (`/etc/apt`).
///
/// # Errors
/// A file cannot be read.
pub(crate) fn read(etc: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc.join("sources.list.d")) {
        files.extend(parts.filter_map(|part| Some(part.ok()?.path())));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_lines,
            Some("sources") => parse_paragraphs,
            _ => continue,
        };
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        sources.extend(parse(&text));
    }
    Ok(sources)
}

/// Parses the format with one entry a line.
fn parse_lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let entry = line.split('#').next()?.trim().strip_prefix("deb")?;
    if !entry.starts_with([' ', '\t', '[']) {
        return None;
    }
    let entry = entry.trim_start();
    let (options, entry) = match entry.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", entry),
    };
    let mut words = entry.split_whitespace().map(str::to_owned);
    let trust = options.split_whitespace().filter_map(|option| option.split_once('=')).filter_map(|(name, value)| {
        let field = trust_field(name)?;
        Some((field.to_owned(), value.replace(',', " ")))
    });
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        trust: trust.collect(),
    })
}

/// Parses the format of paragraphs.
fn parse_paragraphs(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).filter_map(parse_paragraph).collect()
}

fn parse_paragraph(lines: &[&str]) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => {
                value.push('\n');
                value.push_str(line);
            }
            (_, _, Some((name, value))) => fields.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            _ => return None,
        }
    }
    let words = |name: &str| -> Vec<String> {
        let values = fields.iter().filter(|(field, _)| field == name);
        values.flat_map(|(_, value)| value.split_whitespace().map(str::to_owned)).collect()
    };
    let disabled = words("enabled").iter().any(|word| word.eq_ignore_ascii_case("no"));
    if disabled || !words("types").iter().any(|word| word == "deb") || words("uris").is_empty() {
        return None;
    }
    let trust = fields.iter().filter_map(|(name, value)| Some((trust_field(name)?.to_owned(), value.clone())));
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        trust: trust.collect(),
    })
}

fn trust_field(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "signed-by" => Some("Signed-By"),
        "trusted" => Some("Trusted"),
        _ => None,
    }
}

impl Source {
    /// How much this looks like Debian's own archive; `None`: not at all.
    fn likeness(&self, security: bool) -> Option<usize> {
        let fits = |suite: &String| {
            let release = suite.split(['-', '/']).next().unwrap_or_default();
            let own = suite == release || suite.ends_with("-updates") || suite.ends_with("-backports");
            let secure = suite.ends_with("-security") || suite.ends_with("/updates");
            RELEASES.contains(&release) && if security { secure } else { own }
        };
        if !self.suites.iter().any(fits) || !self.components.iter().any(|component| component == "main") {
            return None;
        }
        let named = self.uris.iter().any(|uri| uri.trim_end_matches('/').rsplit('/').next() == Some("debian"));
        let own_key = self.trust.iter().any(|(_, value)| value.contains("debian-archive"));
        let foreign_key = !own_key && self.trust.iter().any(|(name, _)| name == "Signed-By");
        Some(usize::from(named) + 2 * usize::from(own_key) + usize::from(!foreign_key))
    }

    fn paragraph(&self, suites: &[String], keyring: Option<&Path>) -> String {
        let trust: String = match keyring {
            None => self.trust.iter().map(|(name, value)| format!("{name}: {value}\n")).collect(),
            Some(keyring) => format!("Signed-By: {}\n", keyring.display()),
        };
        let (uris, suites) = (self.uris.join(" "), suites.join(" "));
        format!("Types: deb\nURIs: {uris}\nSuites: {suites}\nComponents: main\n{trust}\n")
    }
}

impl Suites {
    /// A whole release: its updates, backports and security suites with it.
    pub(crate) fn release(name: &str) -> Self {
        let main = ["", "-updates", "-backports"].map(|suffix| format!("{name}{suffix}"));
        Self { main: main.into(), security: Some(format!("{name}-security")) }
    }

    /// A release as its users have it who want nothing newer: no backports.
    pub(crate) fn stable(name: &str) -> Self {
        let main = ["", "-updates"].map(|suffix| format!("{name}{suffix}"));
        Self { main: main.into(), security: Some(format!("{name}-security")) }
    }

    /// One suite, nothing with it.
    pub(crate) fn only(name: &str) -> Self {
        Self { main: vec![name.to_owned()], security: None }
    }
}

impl Archive {
    /// Chooses the Debian entries among all; other parties' entries are ignored.
    ///
    /// # Errors
    /// No entry looks like Debian's main archive.
    pub(crate) fn choose(sources: &[Source]) -> Result<Self> {
        let best = |security| {
            let ranked = sources.iter().filter_map(|source| Some((source.likeness(security)?, source)));
            ranked.max_by_key(|(likeness, _)| *likeness).map(|(_, source)| source.clone())
        };
        let Some(main) = best(false) else {
            bail!("no Debian archive among this machine's apt sources: the lab needs Debian 12 or later");
        };
        Ok(Self { main, security: best(true) })
    }

    /// The lab's own sources: the same archives, with these suites. `keyring` takes the place of the machine's keys.
    pub(crate) fn render(&self, suites: &Suites, keyring: Option<&Path>) -> String {
        let security = self.security.as_ref().zip(suites.security.clone());
        let security = security.map(|(source, suite)| source.paragraph(&[suite], keyring));
        self.main.paragraph(&suites.main, keyring) + &security.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Archive, Suites, parse_lines, parse_paragraphs};

    const PARAGRAPHS: &str = "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
        Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
        Types: deb\nURIs: https://other.example/debian/12/prod\nSuites: bookworm\nComponents: main\nSigned-By:\n KEY\n .\n END\n\n\
        Types: deb\nURIs: https://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n";

    #[test]
    fn paragraphs_give_main_and_security_and_no_third_party() {
        let sources = parse_paragraphs(PARAGRAPHS);
        assert_eq!(sources.len(), 3);
        assert_eq!(sources[2].trust, [("Signed-By".to_owned(), "\n KEY\n .\n END".to_owned())]);
        let archive = Archive::choose(&sources).unwrap();
        assert_eq!(
            archive.render(&Suites::release("bookworm"), None),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates bookworm-backports\n\
             Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
             Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n"
        );
        assert_eq!(
            archive.render(&Suites::only("sid"), Some("/keys.gpg".as_ref())),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: sid\nComponents: main\nSigned-By: /keys.gpg\n\n"
        );
    }

    #[test]
    fn lines_are_understood_with_and_without_options() {
        let sources = parse_lines(
            "# deb http://no.example/debian bookworm main\ndeb-src http://no.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/k/debian-archive.gpg] http://mirror.example/debian/ bookworm main contrib # mine\n\
             deb http://sec.example/debian-security bookworm-security main\n\
             deb [signed-by=/k/d.asc] https://d.example/linux/debian bookworm stable\n",
        );
        assert_eq!(sources.len(), 3);
        let text = Archive::choose(&sources).unwrap().render(&Suites::stable("bookworm"), None);
        assert!(text.starts_with("Types: deb\nURIs: http://mirror.example/debian/\n"), "{text}");
        assert!(text.contains("Signed-By: /k/debian-archive.gpg\n"), "{text}");
        assert!(text.contains("Suites: bookworm-security\n"), "{text}");
    }

    #[test]
    fn a_machine_without_debian_is_refused() {
        let sources = parse_lines("deb http://mirror.example/ubuntu noble main\n");
        assert!(Archive::choose(&sources).is_err());
    }
}
