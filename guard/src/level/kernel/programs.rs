//! What the kernel asks for us, once it is loaded: four programs of one shape.
//!
//! A file on the volume is read, mapped and executed only if the file system holds it to a digest (fs-verity) that was
//! admitted. Folders are nobody's secret, and other volumes none of its business.

use super::btf::{BadTypes, Types};
use super::code::{BadCode, Code, R, Width};

/// Numbers in the map of settings.
pub(super) const ENFORCE: i32 = 0;
pub(super) const KEEPER: i32 = 1;
pub(super) const WATCH: i32 = 2;
pub(super) const REFUSED: i32 = 3;

const NOT_PERMITTED: i32 = -1;
const MAY_READ: i32 = 4;
/// Above this an address is none but says what went wrong, or, of a mount, that it is nobody's but the kernel's.
const NO_ADDRESS: i32 = -4096;
const KIND: i32 = 0xf000;
const FOLDER: i32 = 0x4000;
const REGULAR: i32 = 0x8000;
/// Bytes of a digest with its kind and length.
const SEALED_BYTES: i32 = 36;

/// The kernel's helpers, by number.
mod help {
    pub(super) const LOOK_UP: i32 = 1;
    pub(super) const PROCESS: i32 = 14;
    pub(super) const READ_KERNEL: i32 = 113;
    pub(super) const VIEW: i32 = 197;
}

/// Places on the stack.
mod at {
    pub(super) const NUMBER: i16 = -4;
    pub(super) const FILE: i16 = -16;
    pub(super) const FILE_READ: i16 = -24;
    /// Two words: a view of some memory.
    pub(super) const VIEW: i16 = -40;
}

/// Where this kernel has things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    file_inode: i16,
    file_mount: i16,
    mount_owner: i32,
    inode_mode: i16,
    inode_volume: i16,
    volume_device: i16,
    program_file: i16,
    measure: u32,
    stay: u32,
    stay_no_longer: u32,
}

impl Places {
    pub(super) fn find(types: &Types<'_>) -> Result<Self, BadTypes> {
        Ok(Self {
            file_inode: types.field("file", "f_inode")?,
            file_mount: types.field("file", "f_path")? + types.field("path", "mnt")?,
            // What a path leads to is a part of the whole mount.
            mount_owner: i32::from(types.field("mount", "mnt_ns")?)
                - i32::from(types.field("mount", "mnt")?),
            inode_mode: types.field("inode", "i_mode")?,
            inode_volume: types.field("inode", "i_sb")?,
            volume_device: types.field("super_block", "s_dev")?,
            program_file: types.field("linux_binprm", "file")?,
            measure: types.function("bpf_get_fsverity_digest")?,
            stay: types.function("bpf_preempt_disable")?,
            stay_no_longer: types.function("bpf_preempt_enable")?,
        })
    }
}

/// Descriptors of the maps, and the volume as the kernel numbers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps {
    pub(super) admitted: i32,
    pub(super) settings: i32,
    pub(super) scratch: i32,
    pub(super) volume: i32,
}

/// When the kernel asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Exec,
    Map,
    Read,
    Open,
}

impl Hook {
    pub(super) const ALL: [Self; 4] = [Self::Exec, Self::Map, Self::Read, Self::Open];

    pub(super) fn function(self) -> &'static str {
        match self {
            Self::Exec => "bpf_lsm_bprm_check_security",
            Self::Map => "bpf_lsm_mmap_file",
            Self::Read => "bpf_lsm_file_permission",
            Self::Open => "bpf_lsm_file_open",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Map => "map",
            Self::Read => "read",
            Self::Open => "open",
        }
    }
}

pub(super) fn program(hook: Hook, places: &Places, maps: &Maps) -> Result<Vec<u8>, BadCode> {
    let mut code = Code::default();
    code.read(Width::Double, R::R6, R::R1, 0);
    match hook {
        Hook::Exec => {
            code.read(Width::Double, R::R6, R::R6, places.program_file);
        }
        Hook::Map => there_is_a_file(&mut code),
        Hook::Read => {
            // Writing is the file system's to refuse.
            code.read(Width::Double, R::R7, R::R1, 8)
                .and(R::R7, MAY_READ)
                .if_is(R::R7, 0, "allow");
        }
        Hook::Open => through_a_hidden_mount(&mut code, places),
    }
    on_the_volume(&mut code, places, maps);
    match hook {
        // Nobody has reason to put another file system over this one, through which it would be mapped unseen.
        Hook::Open => {
            code.jump("deny");
        }
        Hook::Read => {
            may_read_anything(&mut code, maps);
            admitted(&mut code, places, maps);
        }
        Hook::Exec | Hook::Map => admitted(&mut code, places, maps),
    }
    ends(&mut code, places, maps, hook != Hook::Open);
    code.finish()
}

/// Answers that reads of this process are refused, and nobody else's: to see whether the kernel asks at all.
pub(super) fn probe(process: i32) -> Result<Vec<u8>, BadCode> {
    let mut code = Code::default();
    code.help(help::PROCESS)
        .shift_right(R::R0, 32)
        .if_half_is_not(R::R0, process, "allow")
        .set(R::R0, NOT_PERMITTED)
        .exit()
        .place("allow")
        .set(R::R0, 0)
        .exit();
    code.finish()
}

/// Memory without a file is mapped as well. Some kernels take it for granted that there is a file and drop what asks for
/// it; so the address is read as a plain number first.
fn there_is_a_file(code: &mut Code) {
    code.write(R::Stack, at::FILE, R::R6)
        .stack(R::R1, at::FILE_READ.into())
        .set(R::R2, 8)
        .stack(R::R3, at::FILE.into())
        .help(help::READ_KERNEL)
        .if_half_is_not(R::R0, 0, "deny")
        .read(Width::Double, R::R1, R::Stack, at::FILE_READ)
        .if_is(R::R1, 0, "allow")
        .if_is(R::R6, 0, "allow");
}

/// Goes on with what another file system opens below itself: by a mount that is in nobody's namespace (overlay).
fn through_a_hidden_mount(code: &mut Code, places: &Places) {
    code.read(Width::Double, R::R3, R::R6, places.file_mount)
        .add_to(R::R3, places.mount_owner)
        .stack(R::R1, at::FILE_READ.into())
        .set(R::R2, 8)
        .help(help::READ_KERNEL)
        .if_half_is_not(R::R0, 0, "deny")
        .read(Width::Double, R::R1, R::Stack, at::FILE_READ)
        .if_not_above(R::R1, NO_ADDRESS, "allow");
}

/// Goes on with a regular file of the volume while it is enforced.
fn on_the_volume(code: &mut Code, places: &Places, maps: &Maps) {
    code.read(Width::Double, R::R7, R::R6, places.file_inode)
        .read(Width::Double, R::R8, R::R7, places.inode_volume)
        .read(Width::Word, R::R8, R::R8, places.volume_device)
        .if_half_is_not(R::R8, maps.volume, "allow");
    setting(code, maps, ENFORCE);
    code.read(Width::Double, R::R8, R::R0, 0)
        .if_is(R::R8, 0, "allow")
        .read(Width::Half, R::R8, R::R7, places.inode_mode)
        .and(R::R8, KIND)
        .if_is(R::R8, FOLDER, "allow")
        .if_half_is_not(R::R8, REGULAR, "deny");
}

/// Two may read what is not admitted: who installs, and who finds out whether it is listed.
fn may_read_anything(code: &mut Code, maps: &Maps) {
    for (number, next) in [(KEEPER, "not the keeper"), (WATCH, "not the watch")] {
        setting(code, maps, number);
        code.read(Width::Double, R::R9, R::R0, 0)
            .help(help::PROCESS)
            .shift_right(R::R0, 32)
            .if_registers_differ(R::R0, R::R9, next)
            .jump("allow")
            .place(next);
    }
}

fn admitted(code: &mut Code, places: &Places, maps: &Maps) {
    // The scratch is this processor's: nobody else writes to it before we have looked up what is in it.
    code.call(places.stay)
        .write_word(R::Stack, at::NUMBER, 0)
        .map(R::R1, maps.scratch)
        .stack(R::R2, at::NUMBER.into())
        .help(help::LOOK_UP)
        .if_is(R::R0, 0, "deny and go")
        .copy(R::R8, R::R0)
        .copy(R::R1, R::R8)
        .set(R::R2, SEALED_BYTES)
        .set(R::R3, 0)
        .stack(R::R4, at::VIEW.into())
        .help(help::VIEW)
        .copy(R::R1, R::R6)
        .stack(R::R2, at::VIEW.into())
        .call(places.measure)
        .if_half_is_not(R::R0, 0, "deny and go")
        .map(R::R1, maps.admitted)
        .copy(R::R2, R::R8)
        .help(help::LOOK_UP)
        .copy(R::R9, R::R0)
        .call(places.stay_no_longer)
        .if_is(R::R9, 0, "deny")
        .jump("allow");
}

fn ends(code: &mut Code, places: &Places, maps: &Maps, stays: bool) {
    if stays {
        code.place("deny and go").call(places.stay_no_longer);
    }
    code.place("deny")
        .write_word(R::Stack, at::NUMBER, REFUSED)
        .map(R::R1, maps.settings)
        .stack(R::R2, at::NUMBER.into())
        .help(help::LOOK_UP)
        .if_is(R::R0, 0, "uncounted")
        .set(R::R1, 1)
        .count(R::R0, R::R1)
        .place("uncounted")
        .set(R::R0, NOT_PERMITTED)
        .exit()
        .place("allow")
        .set(R::R0, 0)
        .exit();
}

/// Where a setting is. Without settings nothing is allowed.
fn setting(code: &mut Code, maps: &Maps, number: i32) {
    code.write_word(R::Stack, at::NUMBER, number)
        .map(R::R1, maps.settings)
        .stack(R::R2, at::NUMBER.into())
        .help(help::LOOK_UP)
        .if_is(R::R0, 0, "deny");
}
