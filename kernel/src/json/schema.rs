//! What the documents of a topic hold, by declaration.

/// Most fields of one object: those that were seen are bits of a word.
pub const FIELDS_MAX: usize = 64;

/// A value of a document: what it is, and whether it may be null.
#[derive(Clone, Debug)]
pub struct Kind {
    pub shape: Shape,
    pub is_nullable: bool,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Shape {
    Int64,
    Float64,
    Text,
    /// Base64 as text.
    Bytes,
    Boolean,
    /// A time with its zone, which is UTC.
    Time,
    Date,
    List(Box<Kind>),
    Object(Vec<Field>),
}

/// A member of an object.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
    /// Whether a document without it means null.
    pub is_null_if_missing: bool,
}
