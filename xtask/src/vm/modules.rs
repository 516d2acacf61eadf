//! The kernel modules a machine loads, with what they need, in an order in which they load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::kernel::Kernel;
use crate::debian::packages;
use crate::{cache, process};

/// What the datapath, the tests and kube-proxy's rules use. aya loads no modules, and neither does
/// the machine by itself; what a kernel has built in or does not know is left out.
const WANTED: &str = "
    veth bridge br_netfilter vxlan geneve dummy 8021q macvlan ipvlan tun vrf bonding ifb netkit
    ipip sit ip_gre ip6_gre ip6_tunnel wireguard
    sch_ingress sch_netem sch_fq cls_bpf cls_u32 cls_matchall cls_flower act_bpf act_mirred act_gact
    sctp crc32c_generic crc32c_intel crc32c_cryptoapi
    inet_diag tcp_diag udp_diag sctp_diag
    nf_conntrack nf_conntrack_netlink nfnetlink nfnetlink_log nf_tables
    nft_ct nft_chain_nat nft_nat nft_masq nft_redir nft_reject nft_reject_inet nft_reject_ipv4
    nft_reject_ipv6 nft_fib nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 nft_limit nft_log nft_numgen
    nft_hash nft_compat nft_meta_bridge nft_reject_bridge nf_conntrack_bridge
    x_tables ip_tables iptable_filter iptable_nat iptable_mangle iptable_raw
    ip6_tables ip6table_filter ip6table_nat ip6table_mangle ip6table_raw ipt_REJECT ip6t_REJECT
    xt_conntrack xt_comment xt_mark xt_MASQUERADE xt_nat xt_addrtype xt_statistic xt_tcpudp
    xt_multiport xt_physdev xt_recent xt_REDIRECT xt_CT xt_LOG xt_limit xt_set xt_nfacct
    nf_log_syslog
";

/// One module, ready to load.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    /// Its file, not compressed.
    pub(crate) file: PathBuf,
}

/// The wanted modules that the kernel has as files, each after those it depends on.
pub(crate) fn select(kernel: &Kernel) -> Result<Vec<Module>> {
    let Some(folder) = &kernel.modules else {
        return Ok(Vec::new());
    };
    let mut files = BTreeMap::new();
    index(&folder.join("kernel"), &mut files)?;
    let unpacked = cache::folder("modules")?.join(&kernel.release);
    fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    let wanted: Vec<&str> = WANTED.split_whitespace().collect();
    order(&wanted, |name| {
        let Some(file) = files.get(name) else {
            return Ok(None);
        };
        let file = decompress(file, &unpacked.join(format!("{name}.ko")))?;
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Some((file, depends(&content))))
    })
}

/// Puts every module after those it depends on. `read` gives a module's file and dependencies, or
/// nothing for one that is built in or not there.
fn order(
    wanted: &[&str],
    mut read: impl FnMut(&str) -> Result<Option<(PathBuf, Vec<String>)>>,
) -> Result<Vec<Module>> {
    let mut ordered = Vec::new();
    let mut seen = BTreeSet::new();
    let mut stack: Vec<(String, Option<PathBuf>)> =
        wanted.iter().map(|&name| (name.to_owned(), None)).collect();
    stack.reverse();
    while let Some((name, file)) = stack.pop() {
        if let Some(file) = file {
            // Met for the second time: all it depends on is in the list.
            ordered.push(Module { name, file });
            continue;
        }
        if !seen.insert(name.clone()) {
            continue;
        }
        if let Some((file, depends)) = read(&name)? {
            stack.push((name, Some(file)));
            stack.extend(depends.into_iter().map(|needed| (needed, None)));
        }
    }
    Ok(ordered)
}

/// The modules a module names in its `.modinfo`, which is a row of `key=value` ending in a zero.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|bytes| bytes == key) else {
        return Vec::new();
    };
    let value = module.get(at + key.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(module_name)
        .collect()
}

/// Modules are named with underscores, their files at times with hyphens.
fn module_name(file_stem: &str) -> String {
    file_stem.replace('-', "_")
}

fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, files)?;
        } else if let Some(file) = path.file_name().and_then(|name| name.to_str())
            && let Some((stem, _)) = file.split_once(".ko")
        {
            files.insert(module_name(stem), path);
        }
    }
    Ok(())
}

/// The module's file itself if it is not compressed, else `unpacked`, made if it is not there.
fn decompress(file: &Path, unpacked: &Path) -> Result<PathBuf> {
    let mut command = match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok(file.to_path_buf()),
        Some("xz") => Command::new("busybox"),
        Some("zst") => Command::new("zstd"),
        _ => bail!(
            "{} is compressed in a way that is not known here",
            file.display()
        ),
    };
    if !unpacked.is_file() {
        let unfinished = unpacked.with_extension(format!("part-{}", std::process::id()));
        let output = fs::File::create(&unfinished)
            .with_context(|| format!("cannot write {}", unfinished.display()))?;
        if command.get_program() == "busybox" {
            command.arg("xzcat");
        } else {
            packages::ensure(&[&[packages::ZSTD]])?;
            command.arg("-dc");
        }
        process::run(command.arg(file).stdout(output))?;
        fs::rename(&unfinished, unpacked)
            .with_context(|| format!("cannot write {}", unpacked.display()))?;
    }
    Ok(unpacked.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(table: &[(&str, &[&str])], wanted: &[&str]) -> Vec<String> {
        let read = |name: &str| {
            let found = table.iter().find(|(module, _)| *module == name);
            Ok(found.map(|(_, needs)| {
                (
                    PathBuf::new(),
                    needs.iter().map(|&need| need.to_owned()).collect(),
                )
            }))
        };
        let modules = order(wanted, read).unwrap();
        modules.into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn dependencies_load_first_and_once() {
        let table: &[(&str, &[&str])] = &[
            ("br_netfilter", &["bridge"]),
            ("bridge", &["stp", "llc"]),
            ("stp", &["llc"]),
            ("llc", &[]),
        ];
        let order = ordered(table, &["br_netfilter", "bridge", "not_there"]);
        let place = |name| order.iter().position(|module| module == name).unwrap();
        assert_eq!(order.len(), 4);
        assert!(place("llc") < place("stp") && place("stp") < place("bridge"));
        assert!(place("bridge") < place("br_netfilter"));
    }

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let module = b"\x7fELF..license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0name=vxlan\0";
        assert_eq!(depends(module), ["udp_tunnel", "ip6_udp_tunnel"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"").is_empty());
    }
}
