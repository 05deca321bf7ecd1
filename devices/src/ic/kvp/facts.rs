//! What a guest tells of itself, in the order in which Hyper-V numbers it.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Facts by name, in order.
pub trait Facts: Send {
    /// All of them, now.
    fn all(&self) -> Vec<(String, String)>;
}

/// The facts of the system below a root.
#[derive(Debug, Clone)]
pub struct SystemFacts {
    root: PathBuf,
}

impl Default for SystemFacts {
    fn default() -> Self {
        Self::below("/")
    }
}

impl SystemFacts {
    /// Of the system whose files are here.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file's text; what is not there says nothing.
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(Path::new(path))).unwrap_or_default()
    }
}

impl Facts for SystemFacts {
    fn all(&self) -> Vec<(String, String)> {
        let line = |path| self.read(path).trim().to_owned();
        let release = line("proc/sys/kernel/osrelease");
        // Hosts want x.y.z.
        let version = release.split('-').next().unwrap_or_default().to_owned();
        let os_release = self.read("etc/os-release");
        let of_os = |name| value_of(&os_release, name);
        let os_version = of_os("VERSION_ID");
        let (major, minor) = os_version.split_once('.').unwrap_or((&os_version, ""));
        let name = Some(of_os("NAME")).filter(|name| !name.is_empty()).unwrap_or_else(|| "Linux".to_owned());
        let facts = [
            ("FullyQualifiedDomainName", line("proc/sys/kernel/hostname")),
            ("IntegrationServicesVersion", env!("CARGO_PKG_VERSION").to_owned()),
            ("NetworkAddressIPv4", joined(&ipv4(&self.read("proc/net/fib_trie")))),
            ("NetworkAddressIPv6", joined(&ipv6(&self.read("proc/net/if_inet6")))),
            ("OSBuildNumber", version.clone()),
            ("OSName", name),
            ("OSMajorVersion", major.to_owned()),
            ("OSMinorVersion", minor.to_owned()),
            ("OSVersion", version),
            ("ProcessorArchitecture", std::env::consts::ARCH.to_owned()),
        ];
        facts.map(|(name, fact)| (name.to_owned(), fact)).into()
    }
}

fn joined<T: ToString>(addresses: &[T]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
}

/// A value of `os-release`, without its quotes.
fn value_of(text: &str, name: &str) -> String {
    let found = text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name);
    found.map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
}

/// This system's own addresses, each once: in the kernel's tree of routes they are leaves with a line that says so.
fn ipv4(trie: &str) -> Vec<Ipv4Addr> {
    let (mut last, mut found) = (None, Vec::new());
    for line in trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !address.is_loopback()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Likewise; the first word of each line is the address.
fn ipv6(table: &str) -> Vec<Ipv6Addr> {
    let words = table.lines().filter_map(|line| line.split_ascii_whitespace().next());
    let addresses = words.filter_map(|word| u128::from_str_radix(word, 16).ok()).map(Ipv6Addr::from_bits);
    addresses.filter(|address| !address.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/sys/kernel/hostname", "guest.example\n");
        put("proc/sys/kernel/osrelease", "6.12.9-cloud-amd64\n");
        put("etc/os-release", "PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12.9\"\n");
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 10.0.0.5\n        \
                    /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\nLocal:\n     |-- 10.0.0.5\n        \
                    /32 host LOCAL\n";
        put("proc/net/fib_trie", trie);
        put(
            "proc/net/if_inet6",
            "00000000000000000000000000000001 01 80 10 80 lo\nfe80000000000000000000000000aa01 02 40 20 80 eth0\n",
        );
        let facts = SystemFacts::below(folder.path()).all();
        let values: Vec<&str> = facts.iter().map(|(_, value)| value.as_str()).collect();
        let version = env!("CARGO_PKG_VERSION");
        let expected =
            ["guest.example", version, "10.0.0.5", "fe80::aa01", "6.12.9", "Debian GNU/Linux", "12", "9", "6.12.9"];
        assert_eq!(values[..9], expected);
        assert_eq!(facts[9].0, "ProcessorArchitecture");
        let empty = SystemFacts::below(folder.path().join("nothing")).all();
        assert_eq!((empty.len(), empty[5].1.as_str()), (10, "Linux"));
    }
}
