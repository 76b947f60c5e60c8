//! The database as the writer's disk.

use std::sync::Arc;
use std::time::Duration;

use rocksdb::WriteBatch;

use super::super::database::{Database, Reader, Stalled};
use super::super::layout::{LOG, ROWS};
use super::batch::{Batch, Engine, Write};
use crate::error::StorageError;

/// How long a stalled write waits before it is tried again.
const STALL_PAUSE: Duration = Duration::from_millis(1);

/// See the module.
pub(in super::super) struct RocksEngine(pub(in super::super) Arc<Database>);

impl Engine for RocksEngine {
    /// The database may have no room in memory until a flush has ended. It is told to say so and not to wait: while it waits it holds
    /// its own queue of writers, and if the flush fails for want of space its recovery waits for that queue, for ever. Waiting
    /// out here, the next try either finds room or gets the flush's error. A stalled write has not begun, so this is no retry of
    /// a failed one.
    fn write_synced(&self, batch: &Batch) -> Result<(), StorageError> {
        let reader = self.0.reader()?;
        loop {
            match reader.write_synced(assemble(&reader, batch))? {
                None => return Ok(()),
                Some(Stalled) => {
                    metrics::counter!("nsquorum_storage_stalls_total").increment(1);
                    std::thread::sleep(STALL_PAUSE);
                }
            }
        }
    }
}

fn assemble(reader: &Reader<'_>, batch: &Batch) -> WriteBatch {
    // Keys, lengths and tags beside what is counted as bytes.
    let capacity = usize::try_from(batch.bytes).unwrap_or(0) + 16 * batch.writes.len() + 16;
    let mut assembled = WriteBatch::with_capacity_bytes(capacity);
    let (log, rows, state) = (reader.log(), reader.rows_family(), reader.state());
    let family = |name| match name {
        LOG => log,
        ROWS => rows,
        _ => state,
    };
    for write in &batch.writes {
        match write {
            Write::Put(name, key, value) => assembled.put_cf(family(*name), key.as_bytes(), value),
            Write::Delete(name, key) => assembled.delete_cf(family(*name), key.as_bytes()),
            Write::DeleteRange(name, from, to) => {
                assembled.delete_range_cf(family(*name), from.as_bytes(), to.as_bytes());
            }
        }
    }
    assembled
}
