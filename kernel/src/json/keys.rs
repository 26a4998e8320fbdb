//! Which field a key names: most documents have the keys of the one before, in the same order.

use super::scan::{Certain, Cursor, padded};
use super::schema::Field;

/// Keys beyond this place in an object are not guessed.
const GUESSES_MAX: usize = 256;

/// The names of an object's fields, and what is known of the order they come in.
pub struct Keys {
    names: Vec<Vec<u8>>,
    guesses: Vec<Guess>,
    scratch: Vec<u8>,
}

/// A key as the document before had it at this place: its quotes and the colon included.
#[derive(Default)]
struct Guess {
    text: Vec<u8>,
    /// Its first sixteen bytes; of a shorter one those bits that count are set in the mask.
    word: u128,
    mask: u128,
    field: Option<usize>,
}

impl Guess {
    fn set(&mut self, text: &[u8], field: Option<usize>) {
        self.text.clear();
        self.text.extend_from_slice(text);
        self.word = padded(text);
        self.mask = u128::MAX >> (128 - 8 * text.len().min(16));
        self.field = field;
    }

    #[inline(always)]
    fn is_at(&self, cursor: &Cursor) -> bool {
        if (cursor.wide_word(cursor.pos) ^ self.word) & self.mask != 0 {
            return false;
        }
        self.text.len() <= 16 || {
            let rest = cursor.text.get(cursor.pos..).unwrap_or_default();
            rest.starts_with(&self.text)
        }
    }
}

impl Keys {
    pub fn new(fields: &[Field]) -> Self {
        Self {
            names: fields
                .iter()
                .map(|field| field.name.clone().into_bytes())
                .collect(),
            guesses: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Goes on behind the key here and its colon; returns which field it names, if it names one.
    #[inline(always)]
    pub fn read(&mut self, cursor: &mut Cursor, position: usize) -> Certain<Option<usize>> {
        if let Some(guess) = self.guesses.get(position)
            && guess.is_at(cursor)
        {
            cursor.pos += guess.text.len();
            return Ok(guess.field);
        }
        self.search(cursor, position)
    }

    #[inline(never)]
    fn search(&mut self, cursor: &mut Cursor, position: usize) -> Certain<Option<usize>> {
        let start = cursor.pos;
        let key = cursor.text()?;
        let is_plain = !key.is_escaped && cursor.peek() == b':';
        cursor.skip_space();
        cursor.expect(b':')?;
        if key.is_escaped {
            self.scratch.clear();
            cursor.unescape(&key, &mut self.scratch)?;
            return Ok(self.find(&self.scratch));
        }
        let field = self.find(&cursor.text[key.start..key.end]);
        // There are guesses for all places before one, or there is none for it either.
        if is_plain && position <= self.guesses.len() && position < GUESSES_MAX {
            if position == self.guesses.len() {
                self.guesses.push(Guess::default());
            }
            self.guesses[position].set(&cursor.text[start..cursor.pos], field);
        }
        Ok(field)
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        self.names.iter().position(|each| each == name)
    }

    /// Goes on behind a value that no field is declared for.
    pub fn skip_value(&mut self, cursor: &mut Cursor) -> Certain<()> {
        cursor.skip_value(&mut self.scratch)
    }
}
