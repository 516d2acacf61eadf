//! The object file and the shared list say the same thing. Needs the object (`cargo xtask ebpf`), not root.
use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya_obj::{EbpfSectionKind, Object, ProgramSection};

/// A map as it is declared.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    kind: u32,
    key_size: usize,
    value_size: usize,
    capacity: u32,
}

macro_rules! declared {
    ($($(#[$doc:meta])* $name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal;)*) => {
        fn declared() -> BTreeMap<String, Declared> {
            [$((stringify!($name), stringify!($kind), size_of::<$key>(), size_of::<$value>(), $capacity)),*]
                .into_iter()
                .map(|(name, kind, key_size, value_size, capacity)| {
                    (name.to_owned(), of_kind(kind, key_size, value_size, capacity))
                })
                .collect()
        }
    };
}
lb_common::for_each_map!(declared);

/// Numbers of `enum bpf_map_type`.
fn of_kind(kind: &str, key_size: usize, value_size: usize, capacity: u32) -> Declared {
    let kind = match kind {
        "HashMap" => 1,
        "Array" => 2,
        "PerCpuArray" => 6,
        "LruHashMap" => 9,
        "LpmTrie" => 11,
        "RingBuf" => 27,
        other => unreachable!("no map type is known for {other}"),
    };
    let (key_size, value_size) = match kind {
        27 => (0, 0),
        // How many bits count stands before them.
        11 => (size_of::<u32>() + key_size, value_size),
        _ => (key_size, value_size),
    };
    Declared {
        kind,
        key_size,
        value_size,
        capacity,
    }
}

fn object() -> Result<Object> {
    Object::parse(lb_userspace::datapath::object()).context("the object cannot be read")
}

#[test]
fn every_map_of_the_object_is_the_one_in_the_list() -> Result<()> {
    let object = object()?;
    let mut found: BTreeMap<String, Declared> = BTreeMap::new();
    let maps: BTreeMap<_, _> = object.maps.iter().collect();
    for (name, map) in maps {
        // Read-only globals and aya-log's buffer are maps as well, and not ours to declare.
        if map.section_kind() != EbpfSectionKind::Maps || name.starts_with("AYA_LOG") {
            continue;
        }
        found.insert(
            name.clone(),
            Declared {
                kind: map.map_type(),
                key_size: map.key_size() as usize,
                value_size: map.value_size() as usize,
                capacity: map.max_entries(),
            },
        );
    }
    let declared = declared();
    for (name, map) in &declared {
        assert_eq!(found.get(name), Some(map), "{name}");
    }
    let unknown: Vec<_> = found
        .keys()
        .filter(|name| !declared.contains_key(*name))
        .collect();
    assert!(
        unknown.is_empty(),
        "maps that are not in lb_common::maps: {unknown:?}"
    );
    Ok(())
}

#[test]
fn the_programs_are_those_that_the_agent_attaches() -> Result<()> {
    let object = object()?;
    let mut programs: Vec<_> = object
        .programs
        .iter()
        .map(|(name, program)| {
            let kind = if matches!(program.section, ProgramSection::SchedClassifier) {
                "tc"
            } else if matches!(program.section, ProgramSection::CgroupSockAddr { .. }) {
                "socket"
            } else {
                "of another kind"
            };
            (name.as_str(), kind)
        })
        .collect();
    programs.sort_unstable();
    assert_eq!(
        programs,
        [
            ("age_flows_v4", "tc"),
            ("age_flows_v6", "tc"),
            ("connect4", "socket"),
            ("connect6", "socket"),
            ("getpeername4", "socket"),
            ("getpeername6", "socket"),
            ("recvmsg4", "socket"),
            ("recvmsg6", "socket"),
            ("sendmsg4", "socket"),
            ("sendmsg6", "socket"),
            ("tc_egress_ethernet", "tc"),
            ("tc_egress_ip", "tc"),
            ("tc_ingress_ethernet", "tc"),
            ("tc_ingress_ip", "tc"),
        ]
    );
    Ok(())
}

#[test]
fn the_licence_lets_the_kernel_lend_its_helpers() -> Result<()> {
    let object = object()?;
    assert_eq!(object.license.to_str()?, "Dual MIT/GPL");
    Ok(())
}

#[test]
fn the_object_has_the_type_information_that_kernels_check() -> Result<()> {
    let object = object()?;
    assert!(
        object.btf.is_some(),
        "no .BTF section: bpf-linker ran without --btf"
    );
    assert!(
        object.btf_ext.is_some(),
        "no .BTF.ext section: the verifier's log would name no lines"
    );
    Ok(())
}
