//! Leases: which messages a consumer holds, and until when.
//!
//! The frontend that delivered a message holds its lease. Timeout, TOUCH, FIN, REQ and disconnect are decided here, next to the socket, and
//! go to the topic leader as events that carry the delivery's [`DeliveryToken`], so that an event about an earlier delivery can never be taken for
//! one about the present delivery. One table serves one subscription; time is an argument, so the table is a step machine.

mod delivery;
mod table;

pub use delivery::{Delivery, DeliveryToken, LeaseEvent, LeaseOutcome};
pub use table::{Emptied, LeaseTable, NotHeld, OrphanedLeases};
