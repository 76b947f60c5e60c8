//! Bounded reading of a frame.

use bytes::{Buf, Bytes};

use super::WireError;

/// What is left of a frame.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) const fn new(frame: Bytes) -> Self {
        Self { rest: frame }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A slice of the frame, not a copy.
    pub(super) fn take(&mut self, len: usize, what: &'static str) -> Result<Bytes, WireError> {
        if len > self.rest.len() {
            return Err(WireError::Length(what));
        }
        Ok(self.rest.split_to(len))
    }

    fn need(&self, len: usize, what: &'static str) -> Result<(), WireError> {
        if self.rest.len() < len {
            Err(WireError::Length(what))
        } else {
            Ok(())
        }
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        self.need(1, what)?;
        Ok(self.rest.get_u8())
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, WireError> {
        self.need(2, what)?;
        Ok(self.rest.get_u16_le())
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.need(4, what)?;
        Ok(self.rest.get_u32_le())
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        self.need(8, what)?;
        Ok(self.rest.get_u64_le())
    }

    pub(super) fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value(what)),
        }
    }

    /// Things one after the other. Their number is not believed before they are there.
    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.u32(what)?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    pub(super) fn end(&self, what: &'static str) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Length(what))
        }
    }
}
