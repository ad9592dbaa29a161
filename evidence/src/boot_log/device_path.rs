//! EFI device paths (UEFI, chapter 10) as text. For people only: no digest covers them.

use super::little::Little;
use super::text;
use super::variable::Guid;

/// Most nodes shown of one path.
const MAX_NODES: usize = 24;
const END: u8 = 0x7f;
/// `PNP0A03`.
const PCI_ROOT: u32 = 0x0a03_41d0;

/// The path in a `UEFI_IMAGE_LOAD_EVENT` (PFP, 10.2.3).
pub(super) fn of_image(data: &[u8]) -> String {
    image_path(data).map_or_else(|| "malformed".to_owned(), to_text)
}

fn image_path(data: &[u8]) -> Option<&[u8]> {
    let mut reader = Little::new(data);
    // Address, size, link time address.
    reader.take(3 * 8)?;
    let bytes = reader.size()?;
    // There is firmware that tells a longer path than it writes.
    let bytes = bytes.min(reader.len());
    reader.take(bytes)
}

/// Nodes joined by slashes, as far as they can be read.
pub(super) fn to_text(path: &[u8]) -> String {
    let mut reader = Little::new(path);
    let mut nodes = Vec::new();
    while nodes.len() < MAX_NODES {
        let Some(node) = node(&mut reader) else {
            break;
        };
        nodes.push(node);
    }
    if nodes.is_empty() {
        return "no path".to_owned();
    }
    text::printable(nodes.join("/").chars())
}

fn node(reader: &mut Little<'_>) -> Option<String> {
    let (kind, subtype, size) = (reader.u8()?, reader.u8()?, usize::from(reader.u16()?));
    let body = reader.take(size.checked_sub(4)?)?;
    if kind == END {
        return None;
    }
    Some(known(kind, subtype, body).unwrap_or_else(|| format!("{kind:#04x}.{subtype:#04x}")))
}

fn known(kind: u8, subtype: u8, body: &[u8]) -> Option<String> {
    let mut reader = Little::new(body);
    Some(match (kind, subtype) {
        (1, 1) => {
            let (function, device) = (reader.u8()?, reader.u8()?);
            format!("Pci({device:#x},{function:#x})")
        }
        (1, 3) => {
            reader.take(4)?;
            format!("MemoryMapped({:#x})", reader.u64()?)
        }
        (2, 1) => match (reader.u32()?, reader.u32()?) {
            (PCI_ROOT, number) => format!("PciRoot({number})"),
            (id, number) => format!("Acpi({id:#x},{number})"),
        },
        (3, 2) => format!("Scsi({},{})", reader.u16()?, reader.u16()?),
        (3, 5) => format!("Usb({},{})", reader.u8()?, reader.u8()?),
        (3, 11) => format!("Mac({})", hex::encode(reader.take(6)?)),
        (3, 18) => format!("Sata({})", reader.u16()?),
        (3, 23) => format!("NVMe({})", reader.u32()?),
        (4, 1) => {
            let partition = reader.u32()?;
            reader.take(2 * 8)?;
            format!("HD({partition},{})", Guid(reader.array()?))
        }
        (4, 4) => text::wide(body),
        (4, 6) => format!("FvFile({})", Guid(reader.array()?)),
        (4, 7) => format!("Fv({})", Guid(reader.array()?)),
        (4, 8) => {
            reader.take(4)?;
            format!("Offset({:#x},{:#x})", reader.u64()?, reader.u64()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_bytes(kind: u8, subtype: u8, body: &[u8]) -> Vec<u8> {
        let size = u16::try_from(body.len() + 4).unwrap();
        [&[kind, subtype][..], &size.to_le_bytes(), body].concat()
    }

    #[test]
    fn a_node_of_a_lying_size_ends_the_path() {
        assert_eq!(to_text(&[4, 4, 0, 0]), "no path");
        assert_eq!(to_text(&[4, 4, 3, 0, 1]), "no path");
        assert_eq!(to_text(&[4, 4, 0xff, 0xff, 1]), "no path");
        assert_eq!(of_image(&[0; 31]), "malformed");
        let endless = node_bytes(1, 9, &[]).repeat(10_000);
        assert!(to_text(&endless).len() < 2 * text::MAX_TEXT_CHARS);
    }

    #[test]
    fn a_path_is_shown_as_its_nodes() {
        let file: Vec<u8> = "\\EFI\\a.efi\0"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let path = [
            node_bytes(2, 1, &[0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0]),
            node_bytes(1, 1, &[2, 0x1f]),
            node_bytes(4, 4, &file),
            node_bytes(0x7f, 0xff, &[]),
            node_bytes(1, 1, &[1, 1]),
        ]
        .concat();
        assert_eq!(to_text(&path), "PciRoot(0)/Pci(0x1f,0x2)/\\EFI\\a.efi");
    }
}
