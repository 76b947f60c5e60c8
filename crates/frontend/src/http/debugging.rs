//! /debug/…: what is left of it without Go's runtime.
//!
//! There is neither a garbage collector to run nor a profiler of blocking calls to set, so both calls have nothing to do; nsqd does it and
//! then answers 500 by accident. Profiles (/debug/pprof) are in Go's own form and do not exist here.

use nsquorum_http::{Query, Reply, StatusCode};
use nsquorum_protocol::go_quote;

/// PUT /debug/setblockrate
pub(super) fn set_block_rate(arguments: &Query) -> Reply {
    let rate = arguments.get("rate").unwrap_or_default();
    let digits = rate
        .strip_prefix(b"-")
        .or_else(|| rate.strip_prefix(b"+"))
        .unwrap_or(rate);
    let why = if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        "invalid syntax"
    } else if std::str::from_utf8(rate).is_ok_and(|rate| rate.parse::<i64>().is_err()) {
        "value out of range"
    } else {
        return free_memory();
    };
    let text = format!("invalid block rate : strconv.Atoi: parsing {}: {why}", go_quote(rate));
    Reply::Plain(StatusCode::BAD_REQUEST, text)
}

/// POST /debug/freememory
pub(super) const fn free_memory() -> Reply {
    Reply::Plain(StatusCode::OK, String::new())
}
