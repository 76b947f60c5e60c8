//! What a node accepts from a client.

/// The bounds and defaults that decide whether a command is accepted and how a session starts.
///
/// [`Limits::default`] is nsqd's defaults. Each field that nsqd lets an operator set carries the name of its flag;
/// times are in milliseconds, sizes in bytes. The values are read for every command, so they are plain numbers: that
/// they make sense together (a minimum below its maximum) is the business of whoever fills them from flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest body of one message; a body of exactly this many bytes is accepted (`max-msg-size`).
    pub max_msg_size: usize,
    /// Longest body of IDENTIFY, AUTH and MPUB (`max-body-size`).
    pub max_body_size: usize,
    /// Highest RDY, told to clients by IDENTIFY (`max-rdy-count`).
    pub max_rdy_count: u32,
    /// How long a message may stay in flight unless the client asks otherwise (`msg-timeout`).
    pub msg_timeout_ms: u64,
    /// Shortest message timeout that a client may ask for; nsqd has no flag for it.
    pub min_msg_timeout_ms: u64,
    /// Longest message timeout that a client may ask for, and the cap of TOUCH (`max-msg-timeout`).
    pub max_msg_timeout_ms: u64,
    /// Longest delay: REQ is cut to it, DPUB beyond it is refused (`max-req-timeout`).
    pub max_req_timeout_ms: u64,
    /// Interval of heartbeats unless the client asks otherwise; nsqd has half its client timeout.
    pub heartbeat_interval_ms: u64,
    /// Shortest heartbeat interval that a client may ask for; nsqd has no flag for it.
    pub min_heartbeat_interval_ms: u64,
    /// Longest heartbeat interval that a client may ask for (`max-heartbeat-interval`).
    pub max_heartbeat_interval_ms: u64,
    /// Output buffer of a connection unless the client asks otherwise; nsqd has no flag for it.
    pub output_buffer_size: usize,
    /// Smallest output buffer that a client may ask for; nsqd has no flag for it.
    pub min_output_buffer_size: usize,
    /// Largest output buffer that a client may ask for (`max-output-buffer-size`).
    pub max_output_buffer_size: usize,
    /// Flush period unless the client asks otherwise (`output-buffer-timeout`).
    pub output_buffer_timeout_ms: u64,
    /// Shortest flush period that a client may ask for (`min-output-buffer-timeout`).
    pub min_output_buffer_timeout_ms: u64,
    /// Longest flush period that a client may ask for (`max-output-buffer-timeout`).
    pub max_output_buffer_timeout_ms: u64,
    /// Highest deflate level that is granted; a higher wish is lowered, not refused (`max-deflate-level`).
    pub max_deflate_level: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_msg_size: 1024 * 1024,
            max_body_size: 5 * 1024 * 1024,
            max_rdy_count: 2500,
            msg_timeout_ms: 60_000,
            min_msg_timeout_ms: 1_000,
            max_msg_timeout_ms: 15 * 60_000,
            max_req_timeout_ms: 60 * 60_000,
            heartbeat_interval_ms: 30_000,
            min_heartbeat_interval_ms: 1_000,
            max_heartbeat_interval_ms: 60_000,
            output_buffer_size: 16 * 1024,
            min_output_buffer_size: 64,
            max_output_buffer_size: 64 * 1024,
            output_buffer_timeout_ms: 250,
            min_output_buffer_timeout_ms: 25,
            max_output_buffer_timeout_ms: 30_000,
            max_deflate_level: 6,
        }
    }
}
