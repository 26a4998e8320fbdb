//! A cursor over one document: white space, literals, and values that nobody asked for.

/// A document, or a part of one, that only the reference may judge.
#[derive(Debug)]
pub struct Uncertain;

/// What the kernel is certain of, or not.
pub type Certain<T> = Result<T, Uncertain>;

/// How deep values may be nested that no field is declared for.
const DEPTH_MAX: usize = 64;

/// How much of what lies behind a document may be read, so that words can be loaded whole.
pub const SLACK: usize = 32;

/// A place in a document.
///
/// The text goes on for a little behind the end of the document, with whatever is there: tokens
/// are read as if it belonged to the document, and `finish` finds out whether one went too far.
pub struct Cursor<'a> {
    pub(super) text: &'a [u8],
    pub(super) pos: usize,
    end: usize,
    /// Which buffer the document is in, and where it begins there.
    pub(super) buffer: u32,
    pub(super) base: u32,
    /// The number of the buffer behind all of these, for texts that have escapes.
    pub(super) side: u32,
}

impl<'a> Cursor<'a> {
    /// Returns a cursor at the start of the document `text[..len]`.
    pub fn new(text: &'a [u8], len: usize) -> Self {
        Self {
            text,
            pos: 0,
            end: len,
            buffer: 0,
            base: 0,
            side: 0,
        }
    }

    /// Returns the byte here; zero, which no token begins with, where the text ends.
    #[inline(always)]
    pub fn peek(&self) -> u8 {
        self.text.get(self.pos).copied().unwrap_or(0)
    }

    /// Returns eight bytes from `at`, the first of them lowest; zeros where the text ends.
    #[inline(always)]
    pub fn word(&self, at: usize) -> u64 {
        match self.text.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => self.last_word(at) as u64,
        }
    }

    /// Returns sixteen bytes from `at`, the first of them lowest; zeros where the text ends.
    #[inline(always)]
    pub fn wide_word(&self, at: usize) -> u128 {
        match self.text.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => u128::from_le_bytes(*bytes),
            None => self.last_word(at),
        }
    }

    #[cold]
    fn last_word(&self, at: usize) -> u128 {
        padded(self.text.get(at..).unwrap_or_default())
    }

    #[inline(always)]
    pub fn skip_space(&mut self) {
        self.token();
    }

    /// Goes on to the first byte of the next token, and returns that.
    #[inline(always)]
    pub fn token(&mut self) -> u8 {
        loop {
            let byte = self.peek();
            // One comparison where there is no space, as in most documents.
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.pos += 1;
        }
    }

    /// Goes on behind `byte`, which must be here.
    #[inline(always)]
    pub fn expect(&mut self, byte: u8) -> Certain<()> {
        if self.peek() != byte {
            return Err(Uncertain);
        }
        self.pos += 1;
        Ok(())
    }

    #[inline(always)]
    pub fn null(&mut self) -> Certain<()> {
        self.literal(b"null")
    }

    #[inline(always)]
    pub fn boolean(&mut self) -> Certain<bool> {
        if self.peek() == b't' {
            return self.literal(b"true").map(|()| true);
        }
        self.literal(b"false").map(|()| false)
    }

    #[inline(always)]
    fn literal(&mut self, text: &[u8]) -> Certain<()> {
        let end = self.pos + text.len();
        if self.text.get(self.pos..end) != Some(text) {
            return Err(Uncertain);
        }
        self.pos = end;
        Ok(())
    }

    /// Checks that only white space is left of the document, and that it was not passed.
    #[inline(always)]
    pub fn finish(&mut self) -> Certain<()> {
        while self.pos < self.end && matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.pos += 1;
        }
        if self.pos == self.end {
            Ok(())
        } else {
            Err(Uncertain)
        }
    }

    /// Goes on behind a value of any kind, which is checked and forgotten.
    ///
    /// Its text goes through `scratch` where it has escapes.
    pub fn skip_value(&mut self, scratch: &mut Vec<u8>) -> Certain<()> {
        self.skip_nested(scratch, DEPTH_MAX)
    }

    fn skip_nested(&mut self, scratch: &mut Vec<u8>, depth: usize) -> Certain<()> {
        match self.peek() {
            b'"' => self.skip_text(scratch),
            b'-' | b'0'..=b'9' => self.skip_number(),
            b'n' => self.null(),
            b't' | b'f' => self.boolean().map(|_| ()),
            b'{' if depth > 0 => self.skip_members(b'}', scratch, depth - 1),
            b'[' if depth > 0 => self.skip_members(b']', scratch, depth - 1),
            _ => Err(Uncertain),
        }
    }

    fn skip_text(&mut self, scratch: &mut Vec<u8>) -> Certain<()> {
        let text = self.text()?;
        if text.is_escaped {
            scratch.clear();
            self.unescape(&text, scratch)?;
        }
        Ok(())
    }

    fn skip_members(&mut self, close: u8, scratch: &mut Vec<u8>, depth: usize) -> Certain<()> {
        self.pos += 1;
        self.skip_space();
        if self.peek() == close {
            self.pos += 1;
            return Ok(());
        }
        loop {
            if close == b'}' {
                self.skip_text(scratch)?;
                self.skip_space();
                self.expect(b':')?;
                self.skip_space();
            }
            self.skip_nested(scratch, depth)?;
            let byte = self.token();
            self.pos += 1;
            if byte == close {
                return Ok(());
            }
            if byte != b',' {
                return Err(Uncertain);
            }
            self.skip_space();
        }
    }
}

/// Returns the first bytes of a text, at most sixteen, and zeros behind it.
pub(super) fn padded(text: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(text) {
        *to = *from;
    }
    u128::from_le_bytes(bytes)
}
