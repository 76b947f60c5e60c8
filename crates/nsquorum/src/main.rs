//! nsquorum
fn main() {}
