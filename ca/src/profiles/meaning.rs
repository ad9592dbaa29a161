//! What is measured into which PCR, in a few words for comments and screens.

/// The PCRs that a new profile compares unless told otherwise: firmware, its drivers, what it boots, Secure Boot. The
/// others change with settings, partitions and command lines.
pub const RECORDED: [u8; 4] = [0, 2, 4, 7];

/// After the TCG PC Client Platform Firmware Profile 1.06, 3.3.4, for 0 to 7; IMA's default for 10; GRUB, shim and
/// systemd-stub (UAPI group, "Linux TPM PCR Registry") for the others.
pub fn of_pcr(pcr: u8) -> &'static str {
    match pcr {
        0 => "firmware code",
        1 => "firmware settings and tables",
        2 => "drivers of cards (option ROMs)",
        3 => "settings of those drivers",
        4 => "boot loaders and kernel images that the firmware started",
        5 => "partition table, and how the firmware handed over",
        6 => "the maker's own",
        7 => "Secure Boot: on or off, its keys, and which of them vouched",
        8 => "GRUB's commands and the kernel's command line",
        9 => "files that GRUB read, the kernel's initrd",
        10 => "files that ran (IMA): never the same twice",
        11 => "unified kernel image and phases of the boot (systemd)",
        12 => "command line and credentials given to systemd-stub",
        13 => "system extensions (systemd-stub)",
        14 => "keys enrolled with shim (MOK)",
        15 => "machine and file system identity (systemd)",
        _ => "no common meaning",
    }
}
