//! Reading of Protocol Buffers messages, as much of the wire format as a SentencePiece model uses.
//!
//! Nothing is copied or allocated: values borrow from the file, so a broken file can claim no more than it has.

/// A field's value as the wire has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order of the file: number and value. Ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Fields { rest: message, length: message.len() }
    }

    fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    fn varint(&mut self) -> Result<u64, String> {
        let start = self.at();
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some((&byte, rest)) = self.rest.split_first() else {
                return Err(format!("ends inside the number at byte {start}"));
            };
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("has a number longer than 64 bits at byte {start}"))
    }

    fn take(&mut self, count: u64, number: u64) -> Result<&'a [u8], String> {
        match usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count)) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(format!(
                "field {number} at byte {} claims {count} bytes, but {} follow",
                self.at(),
                self.rest.len()
            )),
        }
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let start = self.at();
        let tag = self.varint()?;
        let number = tag >> 3;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8, number)?;
                Value::Fixed64
            }
            2 => {
                let count = self.varint()?;
                Value::Bytes(self.take(count, number)?)
            }
            5 => {
                let bytes = self.take(4, number)?;
                Value::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            kind => return Err(format!("has a field of wire type {kind} at byte {start}")),
        };
        if number == 0 {
            Err(format!("has a field without number at byte {start}"))
        } else {
            Ok((number, value))
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(format!("is {other:?}, not a string of bytes")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|e| format!("is no UTF-8: {e}"))
    }

    pub(super) fn flag(self) -> Result<bool, String> {
        self.number().map(|number| number != 0)
    }

    pub(super) fn number(self) -> Result<u64, String> {
        match self {
            Value::Varint(number) => Ok(number),
            other => Err(format!("is {other:?}, not an integer")),
        }
    }

    pub(super) fn float(self) -> Result<f32, String> {
        match self {
            Value::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            other => Err(format!("is {other:?}, not a 32-bit number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        let message =
            [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 0, 0, 0x80, 0x3f, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let fields: Vec<_> = Fields::new(&message).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Varint(150)));
        assert_eq!(fields[1].1.text(), Ok("hi"));
        assert_eq!(fields[2].1.float(), Ok(1.0));
        assert_eq!(fields[3], (4, Value::Fixed64));
        assert!(fields[0].1.text().is_err() && fields[1].1.number().is_err());
    }

    #[test]
    fn broken_messages_are_explained() {
        for (message, part) in [
            (&[0x80][..], "ends inside"),
            (&[0xff; 11], "longer than 64 bits"),
            (&[0x12, 0x05, b'h'], "claims 5 bytes, but 1 follow"),
            (&[0x1d, 0], "claims 4 bytes"),
            (&[0x0b], "wire type 3"),
            (&[0x00, 0x01], "without number"),
        ] {
            let mut fields = Fields::new(message);
            let problem = fields.next().unwrap().unwrap_err();
            assert!(problem.contains(part), "{problem}");
            assert!(fields.next().is_none());
        }
    }
}
