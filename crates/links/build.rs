//! Compiles the peer protocol. `protox` reads it, so no `protoc` need be installed.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Relative to this package, where cargo runs this: clones of the project share their builds, and this program with them.
    let root = Path::new("../../proto");
    let file = root.join("peer.proto");
    println!("cargo::rerun-if-changed={}", file.display());
    let descriptors = protox::compile([&file], [root])?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
