//! The NSQ wire format without IO.
//!
//! Bytes in, values out, and back: names, ids, commands, frames, IDENTIFY, and the bodies of HTTP `/mpub`. Nothing
//! here reads a socket, a clock or a setting, so the same code serves the server, the client and the tests, and every
//! byte that an unchanged NSQ client can see is decided in one place that can be tested with tables.

mod command;
pub mod compression;
mod decoder;
pub mod encode;
mod error;
pub mod frame;
mod go_text;
mod identify;
mod limits;
mod line;
mod lookup_identify;
mod magic;
mod message_id;
mod mpub;
mod name;
mod negotiate;
mod quote;

pub use command::{Command, ConnectionState};
pub use decoder::{DecodeContext, Decoder, MAX_LINE_LENGTH};
pub use encode::MAGIC_V2;
pub use error::{ErrorCode, Fatality, InFlightError, ProtocolError};
pub use frame::{Frame, FrameDecoder, FrameError};
pub use identify::IdentifyRequest;
pub use limits::Limits;
pub use lookup_identify::{InvalidLookupIdentify, LookupIdentify};
pub use magic::take_magic;
pub use message_id::{MESSAGE_ID_LENGTH, MessageId};
pub use mpub::{MpubBodyError, mpub_binary, mpub_text};
pub use name::{ChannelName, InvalidName, MAX_NAME_LENGTH, TopicName};
pub use negotiate::{Compression, Negotiated, ServerFeatures, SessionSettings};
pub use quote::go_quote;
