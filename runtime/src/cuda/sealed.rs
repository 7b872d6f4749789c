//! Bytes that are either whole and of this program, or refused: what files of compiled code are
//! made of.
//!
//! magic (8) · format version (4) · key (32) · length of the header (8) · length of the body (8) ·
//! header · body · BLAKE3 of everything before it (32). Integers are little-endian.

/// A sealed file, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed<'a> {
    /// What the file is about; zeros where nothing looks it up.
    pub(crate) key: [u8; 32],
    /// Text that describes the body.
    pub(crate) header: &'a str,
    /// The rest.
    pub(crate) body: &'a [u8],
}

const FIXED: usize = 8 + 4 + 32 + 8 + 8;
const DIGEST: usize = 32;

impl<'a> Sealed<'a> {
    /// The bytes of the file.
    pub(crate) fn to_bytes(&self, magic: &[u8; 8], version: u32) -> Vec<u8> {
        let (header, body) = (self.header.as_bytes(), self.body);
        let mut out = Vec::with_capacity(FIXED + header.len() + body.len() + DIGEST);
        out.extend(magic);
        out.extend(version.to_le_bytes());
        out.extend(self.key);
        out.extend((header.len() as u64).to_le_bytes());
        out.extend((body.len() as u64).to_le_bytes());
        out.extend(header);
        out.extend(body);
        let digest = blake3::hash(&out);
        out.extend(digest.as_bytes());
        out
    }

    /// The file opened, or why it is not one.
    pub(crate) fn open(
        bytes: &'a [u8],
        magic: &[u8; 8],
        version: u32,
    ) -> Result<Sealed<'a>, &'static str> {
        match Sealed::first(bytes, magic, version)? {
            (sealed, []) => Ok(sealed),
            _ => Err("longer than it says"),
        }
    }

    /// The first of several files in a row, and the bytes after it.
    pub(crate) fn first(
        bytes: &'a [u8],
        magic: &[u8; 8],
        version: u32,
    ) -> Result<(Sealed<'a>, &'a [u8]), &'static str> {
        if !bytes.starts_with(magic) {
            return Err("not written by sparsek");
        }
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or("cut short")?;
        if fixed[8..12] != version.to_le_bytes() {
            return Err("written by another version of sparsek");
        }
        let key = fixed[12..44].try_into().map_err(|_| "cut short")?;
        let length = |range: std::ops::Range<usize>| -> Option<usize> {
            usize::try_from(u64::from_le_bytes(fixed[range].try_into().ok()?)).ok()
        };
        let lengths = (length(44..52), length(52..60));
        let (Some(header_len), Some(body_len)) = lengths else { return Err("damaged") };
        let (header, rest) = rest.split_at_checked(header_len).ok_or("cut short")?;
        let (body, rest) = rest.split_at_checked(body_len).ok_or("cut short")?;
        let (digest, rest) = rest.split_at_checked(DIGEST).ok_or("cut short")?;
        let sealed = bytes.len() - rest.len() - DIGEST;
        if blake3::hash(&bytes[..sealed]).as_bytes() != digest {
            return Err("damaged: the digest differs");
        }
        let header = std::str::from_utf8(header).map_err(|_| "damaged")?;
        Ok((Sealed { key, header, body }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"TESTFILE";

    #[test]
    fn whole_files_open_and_no_others() {
        let sealed = Sealed { key: [7; 32], header: "{}", body: b"code" };
        let bytes = sealed.to_bytes(MAGIC, 3);
        assert_eq!(Sealed::open(&bytes, MAGIC, 3), Ok(sealed));
        assert!(Sealed::open(&bytes, b"OTHERONE", 3).is_err());
        assert!(Sealed::open(&bytes, MAGIC, 4).unwrap_err().contains("version"));
        for len in 0..bytes.len() {
            assert!(Sealed::open(&bytes[..len], MAGIC, 3).is_err(), "cut to {len}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            assert!(Sealed::open(&changed, MAGIC, 3).is_err(), "byte {at} changed");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Sealed::open(&longer, MAGIC, 3).is_err());
    }

    #[test]
    fn files_in_a_row() {
        let sealed = Sealed { key: [7; 32], header: "{}", body: b"code" };
        let other = Sealed { key: [1; 32], header: "", body: b"" };
        let bytes = [sealed.to_bytes(MAGIC, 3), other.to_bytes(MAGIC, 3)].concat();
        let (first, rest) = Sealed::first(&bytes, MAGIC, 3).unwrap();
        assert_eq!(first, sealed);
        assert_eq!(Sealed::first(rest, MAGIC, 3), Ok((other, &[][..])));
    }
}
