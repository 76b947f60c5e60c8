//! What the fuzz targets share: bytes that arrive in pieces, and a bound on memory.

mod compressed;
mod memory;
mod pieces;

pub use compressed::decompress;
pub use memory::bounded;
pub use pieces::pieces;
