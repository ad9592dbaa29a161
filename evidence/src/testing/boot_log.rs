//! Event logs made to order, and the PCR values that they give: a machine that boots as a test wants it.

use std::collections::BTreeMap;

use crate::boot_log::EventType;
use crate::boot_log::signature_list::{CERT_SHA256, CERT_X509};
use crate::boot_log::variable::Guid;
use crate::tpm::HashAlg;
use crate::tpm::pcr::PCR_COUNT;

/// A log that grows event by event. Starts empty: [`BootLogBuilder::typical`] is a whole boot.
#[derive(Clone, Debug)]
pub struct BootLogBuilder {
    /// Empty: a SHA-1 log.
    banks: Vec<HashAlg>,
    locality: u8,
    events: Vec<BuiltEvent>,
}

/// One event, to be altered at will: nothing makes sure that it makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltEvent {
    pub pcr: u32,
    pub kind: EventType,
    /// What the log says.
    pub data: Vec<u8>,
    /// What was measured.
    pub measured: Vec<u8>,
}

impl BuiltEvent {
    /// Its digest covers its data.
    pub fn new(pcr: u32, kind: EventType, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        Self {
            pcr,
            kind,
            measured: data.clone(),
            data,
        }
    }

    /// Its digest is of something else.
    pub fn over(
        pcr: u32,
        kind: EventType,
        data: impl Into<Vec<u8>>,
        measured: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            pcr,
            kind,
            data: data.into(),
            measured: measured.into(),
        }
    }
}

impl BootLogBuilder {
    /// A crypto-agile log of these banks without an event; without a bank a SHA-1 log.
    pub fn new(banks: &[HashAlg]) -> Self {
        Self {
            banks: banks.to_vec(),
            locality: 0,
            events: Vec::new(),
        }
    }

    /// A whole boot in the SHA-256 bank: firmware, Secure Boot on or off, GRUB, and a Linux kernel with its command line
    /// and initial RAM disk, until the firmware hands over.
    pub fn typical(secure_boot: bool) -> Self {
        Self::typical_in(&[HashAlg::Sha256], secure_boot)
    }

    /// The same in other banks.
    pub fn typical_in(banks: &[HashAlg], secure_boot: bool) -> Self {
        let mut log = Self::new(banks)
            .event(0, EventType::S_CRTM_VERSION, wide("firmware 1.0"))
            .event_over(
                0,
                EventType::EFI_PLATFORM_FIRMWARE_BLOB,
                [0; 16],
                "code of the firmware",
            )
            .secure_boot_variables(secure_boot)
            .event(
                1,
                EventType::EFI_VARIABLE_BOOT,
                variable_data(Guid::GLOBAL, "BootOrder", &[0, 0, 1, 0]),
            )
            .event(
                4,
                EventType::EFI_ACTION,
                "Calling EFI Application from Boot Option",
            );
        for pcr in 0..=7 {
            log = log.event(pcr, EventType::SEPARATOR, [0; 4]);
        }
        if secure_boot {
            log = log.authority("db", "certificate of the vendor");
        }
        log.application("\\EFI\\BOOT\\BOOTX64.EFI", "boot loader 1")
            .grub_command("set default=0")
            .grub_file("/vmlinuz-6.1", "kernel 6.1")
            .kernel_command_line("/vmlinuz-6.1 root=/dev/vda1 ro")
            .grub_file("/initrd.img-6.1", "initial ram disk 6.1")
            .exit()
    }

    /// The TPM was started at this locality (0, 3 or 4): says so, and starts PCR 0 from it.
    pub fn startup_locality(mut self, locality: u8) -> Self {
        self.locality = locality;
        let data = [b"StartupLocality\0".as_slice(), &[locality]].concat();
        self.events
            .insert(0, BuiltEvent::new(0, EventType::NO_ACTION, data));
        self
    }

    /// `SecureBoot`, `PK`, `KEK`, `db` and `dbx`, as the firmware measures them into PCR 7.
    pub fn secure_boot_variables(self, on: bool) -> Self {
        let certificate = |name: &str| signature_list(CERT_X509, &[name.as_bytes()]);
        self.variable(Guid::GLOBAL, "SecureBoot", &[u8::from(on)])
            .variable(Guid::GLOBAL, "PK", &certificate("platform key"))
            .variable(Guid::GLOBAL, "KEK", &certificate("key exchange key"))
            .variable(
                Guid::IMAGE_SECURITY,
                "db",
                &certificate("certificate of the vendor"),
            )
            .variable(
                Guid::IMAGE_SECURITY,
                "dbx",
                &signature_list(CERT_SHA256, &[&[1; 32], &[2; 32]]),
            )
    }

    /// A variable measured into PCR 7.
    pub fn variable(self, guid: Guid, name: &str, value: &[u8]) -> Self {
        self.event(
            7,
            EventType::EFI_VARIABLE_DRIVER_CONFIG,
            variable_data(guid, name, value),
        )
    }

    /// An image was allowed to run by this entry of a database.
    pub fn authority(self, database: &str, entry: &str) -> Self {
        self.event(
            7,
            EventType::EFI_VARIABLE_AUTHORITY,
            variable_data(Guid::IMAGE_SECURITY, database, entry.as_bytes()),
        )
    }

    /// The firmware loads an image; `image` stands for its bytes.
    pub fn application(self, path: &str, image: &str) -> Self {
        self.event_over(
            4,
            EventType::EFI_BOOT_SERVICES_APPLICATION,
            image_load(path),
            image,
        )
    }

    /// GRUB measures a command.
    pub fn grub_command(self, command: &str) -> Self {
        self.event_over(8, EventType::IPL, format!("grub_cmd: {command}\0"), command)
    }

    /// GRUB measures a file: a kernel, an initial RAM disk; `content` stands for its bytes.
    pub fn grub_file(self, path: &str, content: &str) -> Self {
        self.event_over(9, EventType::IPL, format!("{path}\0"), content)
    }

    /// GRUB measures the command line of the kernel.
    pub fn kernel_command_line(self, line: &str) -> Self {
        self.event_over(8, EventType::IPL, format!("kernel_cmdline: {line}\0"), line)
    }

    /// The firmware hands over.
    pub fn exit(self) -> Self {
        self.event(5, EventType::EFI_ACTION, "Exit Boot Services Invocation")
            .event(
                5,
                EventType::EFI_ACTION,
                "Exit Boot Services Returned with Success",
            )
    }

    /// Any event whose digest covers its data.
    pub fn event(mut self, pcr: u32, kind: EventType, data: impl Into<Vec<u8>>) -> Self {
        self.events.push(BuiltEvent::new(pcr, kind, data));
        self
    }

    /// Any event whose digest is of `measured`.
    pub fn event_over(
        mut self,
        pcr: u32,
        kind: EventType,
        data: impl Into<Vec<u8>>,
        measured: impl Into<Vec<u8>>,
    ) -> Self {
        self.events
            .push(BuiltEvent::over(pcr, kind, data, measured));
        self
    }

    /// The events so far, to be altered, moved or removed.
    pub fn events_mut(&mut self) -> &mut Vec<BuiltEvent> {
        &mut self.events
    }

    /// The log as the kernel would show it.
    pub fn build(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.banks.is_empty() {
            put_lone(&mut out, &self.header());
        }
        for event in &self.events {
            if self.banks.is_empty() {
                put_lone(&mut out, event);
                continue;
            }
            put_u32(&mut out, event.pcr);
            put_u32(&mut out, event.kind.0);
            put_u32(&mut out, size(self.banks.len()));
            for bank in &self.banks {
                out.extend(bank.id().to_le_bytes());
                out.extend(bank.digest(&[&event.measured]));
            }
            put_u32(&mut out, size(event.data.len()));
            out.extend(&event.data);
        }
        out
    }

    /// The values of PCRs 0 to 23 after this boot, in the order of their numbers.
    pub fn pcrs(&self, bank: HashAlg) -> Vec<Vec<u8>> {
        let len = bank.digest_len();
        let mut values: Vec<Vec<u8>> = (0..PCR_COUNT)
            .map(|pcr| vec![if (17..=22).contains(&pcr) { 0xff } else { 0 }; len])
            .collect();
        if let Some(last) = values.first_mut().and_then(|value| value.last_mut()) {
            *last = self.locality;
        }
        for event in &self.events {
            if event.kind == EventType::NO_ACTION {
                continue;
            }
            let pcr = usize::try_from(event.pcr).expect("a PCR");
            let value = values.get_mut(pcr).expect("a PCR below 24");
            *value = bank.digest(&[value.as_slice(), &bank.digest(&[&event.measured])]);
        }
        values
    }

    /// Those of them that are asked for: what a quote would say.
    pub fn quoted(&self, bank: HashAlg, pcrs: &[u8]) -> BTreeMap<u8, Vec<u8>> {
        (0_u8..)
            .zip(self.pcrs(bank))
            .filter(|(pcr, _)| pcrs.contains(pcr))
            .collect()
    }

    fn header(&self) -> BuiltEvent {
        let mut data = b"Spec ID Event03\0".to_vec();
        // Class 0 (client), version 2.0, errata 0, UINTN of 64 bits.
        data.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        put_u32(&mut data, size(self.banks.len()));
        for bank in &self.banks {
            data.extend(bank.id().to_le_bytes());
            data.extend(u16::try_from(bank.digest_len()).unwrap_or(0).to_le_bytes());
        }
        data.push(0);
        BuiltEvent::new(0, EventType::NO_ACTION, data)
    }
}

/// `UEFI_VARIABLE_DATA`.
pub fn variable_data(guid: Guid, name: &str, value: &[u8]) -> Vec<u8> {
    let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut data = guid.0.to_vec();
    data.extend(u64::from(size(units.len() / 2)).to_le_bytes());
    data.extend(u64::from(size(value.len())).to_le_bytes());
    data.extend(units);
    data.extend(value);
    data
}

/// One `EFI_SIGNATURE_LIST` of signatures of one size.
pub fn signature_list(kind: Guid, signatures: &[&[u8]]) -> Vec<u8> {
    let each = 16 + signatures.first().map_or(0, |signature| signature.len());
    let mut list = kind.0.to_vec();
    put_u32(&mut list, size(28 + each * signatures.len()));
    put_u32(&mut list, 0);
    put_u32(&mut list, size(each));
    for signature in signatures {
        list.extend([0x77; 16]);
        list.extend(*signature);
    }
    list
}

/// `UEFI_IMAGE_LOAD_EVENT` of a file.
fn image_load(path: &str) -> Vec<u8> {
    let mut node = vec![4, 4];
    let units: Vec<u8> = wide(path);
    node.extend(
        u16::try_from(units.len() + 4)
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    node.extend(units);
    node.extend([0x7f, 0xff, 4, 0]);
    let mut data = vec![0; 24];
    data.extend(u64::from(size(node.len())).to_le_bytes());
    data.extend(node);
    data
}

/// UTF-16LE with a zero at its end.
fn wide(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

fn put_lone(out: &mut Vec<u8>, event: &BuiltEvent) {
    put_u32(out, event.pcr);
    put_u32(out, event.kind.0);
    if event.kind == EventType::NO_ACTION {
        out.extend([0; 20]);
    } else {
        out.extend(HashAlg::Sha1.digest(&[&event.measured]));
    }
    put_u32(out, size(event.data.len()));
    out.extend(&event.data);
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

fn size(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
