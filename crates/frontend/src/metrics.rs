//! Figures about clients. Handles are made once: looking a metric up by name costs more than a small publish may.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// The metrics of one server; clones count into the same.
#[derive(Clone)]
pub(crate) struct FrontendMetrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_total: Counter,
    pub(crate) published_messages: Counter,
    pub(crate) published_bytes: Counter,
    pub(crate) publishes_ok: Counter,
    pub(crate) publishes_failed: Counter,
    pub(crate) publish_seconds: Histogram,
    pub(crate) deliveries: Counter,
    pub(crate) finishes: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) protocol_errors: Counter,
    pub(crate) http_requests: Counter,
}

impl FrontendMetrics {
    /// The handles, from the recorder that is installed now.
    pub(crate) fn new() -> Self {
        Self {
            connections: gauge!("nsquorum_frontend_connections"),
            connections_total: counter!("nsquorum_frontend_connections_total"),
            published_messages: counter!("nsquorum_frontend_published_messages_total"),
            published_bytes: counter!("nsquorum_frontend_published_bytes_total"),
            publishes_ok: counter!("nsquorum_frontend_publishes_total", "result" => "ok"),
            publishes_failed: counter!("nsquorum_frontend_publishes_total", "result" => "failed"),
            publish_seconds: histogram!("nsquorum_frontend_publish_seconds"),
            deliveries: counter!("nsquorum_frontend_deliveries_total"),
            finishes: counter!("nsquorum_frontend_finishes_total"),
            read_bytes: counter!("nsquorum_frontend_read_bytes_total"),
            written_bytes: counter!("nsquorum_frontend_written_bytes_total"),
            protocol_errors: counter!("nsquorum_frontend_protocol_errors_total"),
            http_requests: counter!("nsquorum_frontend_http_requests_total"),
        }
    }
}
