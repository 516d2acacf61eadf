//! The bpf(2) calls that aya has no index-based or atomic form for: links, their pins, and who else is attached.
//!
//! Devices are named by index, never by name: a name may belong to another device by the time the kernel reads it.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};

// enum bpf_cmd in linux/bpf.h.
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// What a link hangs on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'fd> {
    /// A network device of the calling thread's network namespace, by index.
    Device(u32),
    /// A cgroup's folder.
    Cgroup(BorrowedFd<'fd>),
}

impl Target<'_> {
    fn word(self) -> u32 {
        match self {
            Self::Device(index) => index,
            Self::Cgroup(fd) => raw(fd.as_raw_fd()),
        }
    }
}

/// The attach types (enum `bpf_attach_type`) that this program uses, by their kernel number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AttachType(pub(crate) u32);

impl AttachType {
    pub(crate) const TCX_INGRESS: Self = Self(46);
    pub(crate) const TCX_EGRESS: Self = Self(47);
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    /// Interface index of a TCX link, zero once its device is gone; the cgroup's id of a cgroup link.
    pub(crate) target: u64,
    pub(crate) attach_type: AttachType,
}

/// A program or link somebody attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) program_id: u32,
    pub(crate) link_id: u32,
}

/// Attaches by a new link, as the last of its attach point.
pub(crate) fn create_link(
    program: BorrowedFd<'_>,
    target: Target<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, Pod)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        relative: u32,
        padding: u32,
        expected_revision: u64,
    }
    let mut attributes = Attributes {
        program: raw(program.as_raw_fd()),
        target: target.word(),
        attach_type: attach_type.0,
        ..Attributes::zeroed()
    };
    // SAFETY: no pointers; the command makes a descriptor.
    unsafe { bpf_fd(LINK_CREATE, &mut attributes) }
}

/// Makes a link run another program from its next packet on.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [raw(link.as_raw_fd()), raw(program.as_raw_fd()), 0, 0];
    // SAFETY: no pointers.
    unsafe { bpf(LINK_UPDATE, &mut attributes) }.map(drop)
}

/// Ends a link, whoever else holds it.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { bpf(LINK_DETACH, &mut [raw(link.as_raw_fd())]) }.map(drop)
}

#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct PathAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Gives a kernel object a name in a BPF file system.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PathAttributes {
        path: path.as_ptr() as u64,
        fd: raw(fd.as_raw_fd()),
        flags: 0,
    };
    // SAFETY: the path is a C string that lives until the end of this function.
    unsafe { bpf(OBJ_PIN, &mut attributes) }.map(drop)
}

/// The kernel object behind a name in a BPF file system.
pub(crate) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = PathAttributes {
        path: path.as_ptr() as u64,
        ..PathAttributes::zeroed()
    };
    // SAFETY: as in `pin`; the command makes a descriptor.
    unsafe { bpf_fd(OBJ_GET, &mut attributes) }
}

/// What the kernel knows of a link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    /// The start of struct `bpf_link_info`, as long as its longest variant of interest.
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, Pod)]
    struct Info {
        kind: u32,
        id: u32,
        program_id: u32,
        padding: u32,
        variant: [u32; 12],
    }
    const TYPE_CGROUP: u32 = 3;
    let mut info = Info::zeroed();
    let mut attributes = InfoAttributes {
        fd: raw(link.as_raw_fd()),
        length: size(&info),
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` lives until the end of this function and has the length that is passed.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let [first, second, third, ..] = info.variant;
    let (target, attach_type) = match info.kind {
        TYPE_CGROUP => (u64::from(first) | u64::from(second) << 32, third),
        _ => (u64::from(first), second),
    };
    Ok(LinkInfo {
        id: info.id,
        program_id: info.program_id,
        target,
        attach_type: AttachType(attach_type),
    })
}

#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// The id and the name (at most 15 bytes) of a program.
pub(crate) fn program_id_and_name(program: BorrowedFd<'_>) -> io::Result<(u32, String)> {
    /// The start of struct `bpf_prog_info`.
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, Pod)]
    struct Info {
        kind: u32,
        id: u32,
        tag: u64,
        lengths: [u32; 2],
        instructions: [u64; 2],
        load_time: u64,
        created_by: u32,
        map_count: u32,
        map_ids: u64,
        name: [u8; 16],
    }
    let mut info = Info::zeroed();
    let mut attributes = InfoAttributes {
        fd: raw(program.as_raw_fd()),
        length: size(&info),
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` lives until the end of this function and has the length that is passed.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or(&[]);
    Ok((info.id, String::from_utf8_lossy(name).into_owned()))
}

/// The name of the program with this id; empty if it is gone.
pub(crate) fn program_name(id: u32) -> String {
    // SAFETY: no pointers; the command makes a descriptor.
    unsafe { bpf_fd(PROG_GET_FD_BY_ID, &mut [id, 0, 0]) }
        .and_then(|fd| program_id_and_name(std::os::fd::AsFd::as_fd(&fd)))
        .map(|(_, name)| name)
        .unwrap_or_default()
}

/// Everything attached at a place, in the order in which it runs.
pub(crate) fn attached(target: Target<'_>, attach_type: AttachType) -> io::Result<Vec<Attached>> {
    /// The kernel's bound is 64 programs at a place.
    const MOST: usize = 64;
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, Pod)]
    struct Attributes {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        program_ids: u64,
        count: u32,
        padding: u32,
        program_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut program_ids = [0u32; MOST];
    let mut link_ids = [0u32; MOST];
    let mut attributes = Attributes {
        target: target.word(),
        attach_type: attach_type.0,
        program_ids: program_ids.as_mut_ptr() as u64,
        count: 64,
        // A cgroup query knows no links: the kernel refuses attributes it does not know.
        link_ids: match target {
            Target::Device(_) => link_ids.as_mut_ptr() as u64,
            Target::Cgroup(_) => 0,
        },
        ..Attributes::zeroed()
    };
    // SAFETY: both arrays live until the end of this function and are as long as `count` says.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.count).unwrap_or(MOST);
    Ok(program_ids
        .into_iter()
        .zip(link_ids)
        .take(count)
        .map(|(program_id, link_id)| Attached {
            program_id,
            link_id,
        })
        .collect())
}

/// Runs a program once, on a packet of zeros: for programs that look at maps alone.
pub(crate) fn run(program: BorrowedFd<'_>) -> io::Result<()> {
    /// The start of struct `test` in union `bpf_attr`.
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, Pod)]
    struct Attributes {
        program: u32,
        returned: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }
    let packet = [0u8; 64];
    let mut attributes = Attributes {
        program: raw(program.as_raw_fd()),
        size_in: size(&packet),
        data_in: packet.as_ptr() as u64,
        repeat: 1,
        ..Attributes::zeroed()
    };
    // SAFETY: the packet lives until the end of this function and has the length that is passed; nothing is
    // written back, for there is no room for it.
    unsafe { bpf(PROG_TEST_RUN, &mut attributes) }.map(drop)
}

/// The value of a socket option that is one u64.
pub(crate) fn socket_cookie_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<u64> {
    let mut value = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// [`bpf`] for commands that answer with a descriptor.
///
/// # Safety
/// As for [`bpf`], and `command` makes a descriptor.
unsafe fn bpf_fd<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The system call. Attributes longer than what the kernel knows are fine as long as the rest is zero.
///
/// # Safety
/// Pointers in the attributes point to memory that lives until the call returns and is as long as the attributes, or the
/// command, say.
pub(super) unsafe fn bpf<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is plain memory of exactly the length that is passed; the caller answers for what it points
    // to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size(attributes),
        )
    };
    match RawFd::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

fn size<T>(_: &T) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// A descriptor as bpf(2) writes it.
pub(super) fn raw(fd: RawFd) -> u32 {
    u32::from_ne_bytes(fd.to_ne_bytes())
}
