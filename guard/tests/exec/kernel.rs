//! The probe of the level that the kernel enforces by itself, on the kernel that runs this.

use edgeward_guard::level::kernel::{NotLoaded, load, probe};

/// A program of another kind loads by the same call, so what the probe says of its own is the kernel's word.
#[test]
fn the_probe_loads_programs_and_says_what_this_kernel_says_of_its_own() {
    const SOCKET_FILTER: u32 = 1;
    /// `r0 = 0; exit`
    const PROGRAM: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    load(SOCKET_FILTER, 0, 0, &PROGRAM).unwrap();
    let unknown = load(u32::MAX, 0, 0, &PROGRAM).unwrap_err();
    assert_eq!(unknown.error.raw_os_error(), Some(nix::libc::EINVAL));
    match probe() {
        Ok(()) => println!("programs that decide load here"),
        Err(NotLoaded::NotAsked) => {
            println!("programs that decide load here, and nobody asks them")
        }
        Err(NotLoaded::Refused(error)) => println!("this kernel refuses them: {error}"),
        Err(other) => panic!("{other}"),
    }
}
