// SPDX-License-Identifier: Apache-2.0
//! What stands in the way of observing anything on this host, for those who are about to try.
//!
//! The same checks that `doctor` shows, and no others, so that both say the same. Only what is certain
//! beforehand: of the rest the kernel itself is asked, by trying.

use lacuna_host::Root;
use lacuna_host::sys::KernelVersion;

use super::Status;
use super::checks;

/// The first check that costs every cause, in one line with what to do about it.
pub(crate) fn obstacle(root: &Root) -> Option<String> {
    let kernel = KernelVersion::read(root);
    let obstacles = [
        checks::type_information(root),
        checks::lockdown(root),
        checks::capabilities(root, kernel.as_ref()),
        checks::processes(root),
    ];
    let mut missing = obstacles
        .into_iter()
        .filter(|check| check.status == Status::Missing);
    let check = missing.next()?;
    Some(format!("{}: {}; {}", check.name, check.why, check.fix))
}

#[cfg(test)]
mod tests {
    use super::obstacle;
    use lacuna_host::Root;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_costs_everything_stands_in_the_way() {
        let base = tempfile::tempdir().unwrap();
        let path = |file: &str| base.path().join(file);
        let said = || obstacle(&Root::at(base.path())).unwrap_or_default();
        fs::create_dir_all(path("sys/kernel/btf")).unwrap();
        fs::create_dir_all(path("sys/kernel/security")).unwrap();
        fs::create_dir_all(path("proc/self/ns")).unwrap();
        assert!(said().contains("no /sys/kernel/btf/vmlinux"));
        fs::write(path("sys/kernel/btf/vmlinux"), "").unwrap();
        assert_eq!(said(), "", "what cannot be read is tried");

        symlink("pid:[4026532000]", path("proc/self/ns/pid")).unwrap();
        assert!(said().contains("not the initial pid namespace"));
        fs::write(path("proc/self/status"), "CapPrm:\t0\nCapEff:\t0\n").unwrap();
        assert!(said().contains("CAP_BPF and CAP_PERFMON are missing"));
        let lockdown = path("sys/kernel/security/lockdown");
        fs::write(&lockdown, "none integrity [confidentiality]").unwrap();
        assert!(said().contains("lockdown: confidentiality"));
        assert_eq!(said().lines().count(), 1);
    }
}
