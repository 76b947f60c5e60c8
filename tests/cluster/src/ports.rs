//! Ports for a whole cluster in a row.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// Ports of one node, from its first on.
const PER_NODE: u16 = 10;
/// Below the range from which the kernel gives ports to clients.
const FIRST: u16 = 11_000;
const LAST: u16 = 31_000;

/// Places that this process has looked at: what is free now may be taken in a moment by the test that it was given to.
static LOOKED: AtomicU16 = AtomicU16::new(0);

/// A base port with free ports for so many nodes at this moment. Different processes begin to look at different places.
///
/// # Errors
/// If there is none.
pub(crate) fn free_base(nodes: u16) -> Result<u16> {
    let step = PER_NODE * nodes;
    let places = (LAST - FIRST) / step;
    let start = u16::try_from(std::process::id() % u32::from(places))?;
    for _ in 0..places {
        let base = FIRST + (start + LOOKED.fetch_add(1, Ordering::Relaxed)) % places * step;
        let free = (0..nodes)
            .all(|node| (0..5).all(|offset| TcpListener::bind(("127.0.0.1", base + PER_NODE * node + offset)).is_ok()));
        if free {
            return Ok(base);
        }
    }
    bail!("no {step} free ports in a row between {FIRST} and {LAST}")
}
