//! Names of topics and channels.
//!
//! A value of [`TopicName`] or [`ChannelName`] is valid by construction, so no layer below the parser checks a name
//! again. The two are different types because every command that takes both takes them side by side, and swapping
//! them compiles with plain strings.
//!
//! Inside is an `Arc<str>`: a name is cloned for every message's route and never changed.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name in bytes, suffix included (nsqd's rule).
pub const MAX_NAME_LENGTH: usize = 64;

const EPHEMERAL_SUFFIX: &[u8] = b"#ephemeral";

/// Why bytes are not a name. nsqd has one rule for topics and channels:
/// `^[.a-zA-Z0-9_-]+(#ephemeral)?$`, 1 to 64 bytes with the suffix. Trying the same name again cannot help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// No bytes at all, or nothing in front of `#ephemeral`.
    #[error("the name is empty")]
    Empty,
    /// More than [`MAX_NAME_LENGTH`] bytes.
    #[error("the name has {length} bytes, more than {MAX_NAME_LENGTH}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A byte that may not stand there.
    #[error("byte {position} of the name is not one of . a-z A-Z 0-9 _ -")]
    ForbiddenByte {
        /// Offset of the first such byte, from 0.
        position: usize,
    },
}

fn validate(bytes: &[u8]) -> Result<&str, InvalidName> {
    if bytes.len() > MAX_NAME_LENGTH {
        return Err(InvalidName::TooLong { length: bytes.len() });
    }
    let stem = bytes.strip_suffix(EPHEMERAL_SUFFIX).unwrap_or(bytes);
    if stem.is_empty() {
        return Err(InvalidName::Empty);
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if let Some(position) = stem.iter().position(|byte| !allowed(byte)) {
        return Err(InvalidName::ForbiddenByte { position });
    }
    Ok(std::str::from_utf8(bytes).expect("every byte was checked to be ASCII"))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text; always ASCII, 1 to 64 bytes.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether the name ends in `#ephemeral`: nothing of it is kept on disk, and it goes with its last user.
            pub fn is_ephemeral(&self) -> bool {
                self.0.as_bytes().ends_with(EPHEMERAL_SUFFIX)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidName;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidName> {
                validate(bytes).map(|text| Self(text.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;

            fn try_from(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.as_bytes())
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.as_bytes())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// Maps keyed by name can be searched by text: equality, order and hash are those of the text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// The name of a topic.
    TopicName
);
name!(
    /// The name of a channel within its topic.
    ChannelName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_nsqd_accepts() {
        for name in ["t", "a.b_c-D9", ".", "-", "x#ephemeral", &"x".repeat(64)] {
            assert_eq!(TopicName::try_from(name).unwrap().as_str(), name);
            assert_eq!(name.parse::<ChannelName>().unwrap().to_string(), name);
        }
        let longest = format!("{}#ephemeral", "x".repeat(54));
        assert!(TopicName::try_from(longest.as_str()).is_ok());
    }

    #[test]
    fn refuses_what_nsqd_refuses() {
        use InvalidName::{Empty, ForbiddenByte, TooLong};
        let table: &[(&[u8], InvalidName)] = &[
            (b"", Empty),
            (b"#ephemeral", Empty),
            (b"t$", ForbiddenByte { position: 1 }),
            (b"a b", ForbiddenByte { position: 1 }),
            (b"t\n", ForbiddenByte { position: 1 }),
            (b"t\xff", ForbiddenByte { position: 1 }),
            ("tä".as_bytes(), ForbiddenByte { position: 1 }),
            (b"t#ephemera", ForbiddenByte { position: 1 }),
            (b"t#ephemeral#ephemeral", ForbiddenByte { position: 1 }),
            (b"t#ephemeralx", ForbiddenByte { position: 1 }),
            (&[b'x'; 65], TooLong { length: 65 }),
        ];
        for (bytes, error) in table {
            assert_eq!(TopicName::try_from(*bytes), Err(*error), "{bytes:?}");
            assert_eq!(ChannelName::try_from(*bytes), Err(*error), "{bytes:?}");
        }
        let too_long = format!("{}#ephemeral", "x".repeat(55));
        assert_eq!(TopicName::try_from(too_long.as_str()), Err(TooLong { length: 65 }));
    }

    #[test]
    fn ephemeral_is_the_suffix() {
        assert!(TopicName::try_from("x#ephemeral").unwrap().is_ephemeral());
        assert!(!TopicName::try_from("ephemeral").unwrap().is_ephemeral());
    }
}
