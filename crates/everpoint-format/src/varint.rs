//! Integers of variable length (LEB128), and strings and bytes with their length before them.

use std::io::Read;

use crate::error::FormatError;

/// Longest string or byte field that is believed.
pub const MAX_FIELD: u64 = 16 << 20;

/// Appends an unsigned integer.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer (zigzag).
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn invalid(why: &str) -> FormatError {
    FormatError::Invalid { what: "a field".to_owned(), why: why.to_owned() }
}

/// Reads fields from a stream.
pub struct Fields<R: Read>(pub R);

impl<R: Read> Fields<R> {
    /// One byte.
    ///
    /// # Errors
    /// If the stream ends.
    pub fn byte(&mut self) -> Result<u8, FormatError> {
        let mut byte = [0; 1];
        self.0.read_exact(&mut byte).map_err(ended)?;
        Ok(byte[0])
    }

    /// A fixed number of bytes.
    ///
    /// # Errors
    /// If the stream ends.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).map_err(ended)?;
        Ok(bytes)
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// If it does not fit 64 bits, or the stream ends.
    pub fn number(&mut self) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(invalid("an integer of more than 64 bits"))
    }

    /// An unsigned integer of 32 bits.
    ///
    /// # Errors
    /// If it does not fit, or the stream ends.
    pub fn number32(&mut self) -> Result<u32, FormatError> {
        u32::try_from(self.number()?).map_err(|_| invalid("an integer of more than 32 bits"))
    }

    /// A signed integer.
    ///
    /// # Errors
    /// If it does not fit 64 bits, or the stream ends.
    pub fn signed(&mut self) -> Result<i64, FormatError> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Bytes behind their length, at most [`MAX_FIELD`].
    ///
    /// # Errors
    /// If they are more, or the stream ends.
    pub fn bytes(&mut self) -> Result<Vec<u8>, FormatError> {
        self.bytes_up_to(MAX_FIELD)
    }

    /// Bytes behind their length, at most `limit`. Memory is taken as they come, not as the length says.
    ///
    /// # Errors
    /// If they are more, or the stream ends.
    pub fn bytes_up_to(&mut self, limit: u64) -> Result<Vec<u8>, FormatError> {
        let length = self.number()?;
        if length > limit {
            return Err(invalid("a field that is too long"));
        }
        let mut bytes = Vec::new();
        self.0.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(FormatError::Truncated { what: "a field".to_owned() })
        }
    }

    /// Text behind its length, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Fields::bytes_up_to`], or if it is not UTF-8.
    pub fn text(&mut self, limit: u64) -> Result<String, FormatError> {
        String::from_utf8(self.bytes_up_to(limit)?).map_err(|_| invalid("text that is not UTF-8"))
    }
}

/// An early end is a cut; other errors stay what they were.
fn ended(error: std::io::Error) -> FormatError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return FormatError::Truncated { what: "a record".to_owned() };
    }
    error.into()
}
