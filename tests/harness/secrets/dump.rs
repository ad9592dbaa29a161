//! Columns of bytes in the dump of a PostgreSQL database.

/// How such a value begins, in a row of `INSERT` and, with its backslash doubled, of `COPY`.
const HEX: &[u8] = b"\\x";

/// What the columns of bytes hold that a dump shows in hex. A secret that lies in one as it is would be found in hex, too;
/// one that lies there in hex or base64, within a document, would not.
pub(super) fn columns_of_bytes(dump: &[u8]) -> Vec<Vec<u8>> {
    let mut columns = Vec::new();
    let mut rest = dump;
    while let Some(at) = rest.windows(HEX.len()).position(|two| two == HEX) {
        rest = rest.get(at + HEX.len()..).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (digits, after) = rest.split_at(digits.count() & !1);
        if let Ok(bytes) = hex::decode(digits)
            && !bytes.is_empty()
        {
            columns.push(bytes);
        }
        rest = after;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_bytes_are_read_from_rows_of_both_kinds_and_nothing_else_is() {
        let inserts =
            b"INSERT INTO public.a VALUES (1, '\\x00ff41', 'x42', '\\x', NULL, '\\x5a5');\n";
        assert_eq!(columns_of_bytes(inserts), [vec![0, 255, 0x41], vec![0x5a]]);
        let copy = b"1\t\\\\x6162\t\\N\n2\t\\\\xC3\t\\xzz\n";
        assert_eq!(columns_of_bytes(copy), [b"ab".to_vec(), vec![0xc3]]);
        assert!(columns_of_bytes(b"\\x").is_empty() && columns_of_bytes(b"").is_empty());
    }
}
