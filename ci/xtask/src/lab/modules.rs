//! A kernel's modules: found in its packages, unpacked, and in the order of their dependencies. The packages have no
//! `modules.dep`, so each module is asked what it depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::fetch::KernelFiles;
use crate::process;

/// The modules of one kernel.
#[derive(Debug)]
pub(crate) struct Modules {
    release: String,
    busybox: PathBuf,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

/// Some modules with all that they depend on.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    /// Code by name.
    pub(crate) code: BTreeMap<String, Vec<u8>>,
    /// What to load before a module, in this order; for what is built in, nothing.
    pub(crate) before: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Looks through a kernel's files; `busybox` unpacks modules that are compressed.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn of(kernel: &KernelFiles, busybox: PathBuf) -> Result<Self> {
        let folder = kernel.modules()?;
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if let Some(name) = name(&entry.path()) {
                    files.insert(name, entry.path());
                }
            }
        }
        let list = fs::read_to_string(folder.join("modules.builtin")).context("read the list of what is built in")?;
        let built_in = list.lines().filter_map(|line| name(Path::new(line))).collect();
        Ok(Self { release: kernel.release.clone(), busybox, files, built_in })
    }

    /// Modules by name, and everything they depend on.
    ///
    /// # Errors
    /// This kernel has no such module, or it cannot be read.
    pub(crate) fn closure(&self, names: &[&str]) -> Result<Closure> {
        let mut closure = Closure::default();
        for name in names {
            self.add(name, &mut closure)?;
        }
        Ok(closure)
    }

    /// Adds a module; the whole way to it, itself included. The kernel's build made sure that there are no circles.
    fn add(&self, name: &str, closure: &mut Closure) -> Result<Vec<String>> {
        if let Some(before) = closure.before.get(name) {
            let itself = closure.code.contains_key(name).then(|| name.to_owned());
            return Ok(before.iter().cloned().chain(itself).collect());
        }
        if self.built_in.contains(name) {
            closure.before.insert(name.to_owned(), Vec::new());
            return Ok(Vec::new());
        }
        let file = self.files.get(name).with_context(|| format!("kernel {} has no module {name}", self.release))?;
        let code = if file.extension().is_some_and(|extension| extension == "xz") {
            process::output(Command::new(&self.busybox).args(["xz", "-dc"]).arg(file))?
        } else {
            fs::read(file).with_context(|| format!("read {}", file.display()))?
        };
        let mut way: Vec<String> = Vec::new();
        for needed in depends(&code) {
            for step in self.add(&needed, closure)? {
                if !way.contains(&step) {
                    way.push(step);
                }
            }
        }
        closure.before.insert(name.to_owned(), way.clone());
        closure.code.insert(name.to_owned(), code);
        way.push(name.to_owned());
        Ok(way)
    }
}

/// A module's name as the kernel writes it, from its file's: `kvm-amd.ko.xz` is `kvm_amd`.
fn name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(stem.replace('-', "_"))
}

/// What a module says in its section of information (strings that end with zero) that it depends on.
fn depends(code: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = code.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let list = code.get(at + FIELD.len()..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Modules, depends, name};
    use crate::lab::fetch::KernelFiles;

    #[test]
    fn names_and_dependencies_are_read() {
        assert_eq!(name(Path::new("kernel/arch/x86/kvm/kvm-amd.ko.xz")).unwrap(), "kvm_amd");
        assert_eq!(name(Path::new("modules.order")), None);
        assert_eq!(depends(b"\x7fELF\0license=GPL\0depends=vsock,hv-vmbus\0retpoline=Y\0"), ["vsock", "hv_vmbus"]);
        assert!(depends(b"\0depends=\0name=uio\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_what_is_built_in_does_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("lib/modules/9");
        fs::create_dir_all(folder.join("kernel/net")).unwrap();
        for (module, depends) in [("hv_sock", "vsock,hv_vmbus,a"), ("vsock", "a"), ("a", "")] {
            let code = format!("\0license=GPL\0depends={depends}\0");
            fs::write(folder.join(format!("kernel/net/{module}.ko")), code).unwrap();
        }
        fs::write(folder.join("modules.builtin"), "kernel/drivers/hv/hv_vmbus.ko\n").unwrap();
        let (package, version) = ("p".to_owned(), "1".to_owned());
        let kernel = KernelFiles { root: root.path().to_owned(), release: "9".to_owned(), package, version };
        let modules = Modules::of(&kernel, "busybox".into()).unwrap();
        let closure = modules.closure(&["hv_vmbus", "hv_sock"]).unwrap();
        assert_eq!(closure.before["hv_sock"], ["a", "vsock"]);
        assert!(closure.before["hv_vmbus"].is_empty());
        assert_eq!(closure.code.keys().collect::<Vec<_>>(), ["a", "hv_sock", "vsock"]);
        assert!(modules.closure(&["uio"]).is_err());
    }
}
