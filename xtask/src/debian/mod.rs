//! Debian's packages: the machine's own, and those of other suites that are only unpacked.

pub(crate) mod packages;
mod suite;

pub(crate) use suite::{Suite, unpack};

/// Whether this is Ubuntu or made from it: apt then knows no mirror of Debian, but has kernels of
/// its own.
pub(crate) fn is_ubuntu() -> bool {
    names_ubuntu(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

fn names_ubuntu(os_release: &str) -> bool {
    let fields = os_release.lines().filter_map(|line| line.split_once('='));
    let mut values = fields.filter(|(key, _)| *key == "ID" || *key == "ID_LIKE");
    values.any(|(_, value)| {
        let value = value.trim_matches('"');
        value.split(' ').any(|word| word == "ubuntu")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ubuntu_is_told_by_its_name_or_its_like() {
        assert!(names_ubuntu("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n"));
        assert!(names_ubuntu("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!names_ubuntu("ID=debian\nHOME_URL=\"x\"\n"));
    }
}
