//! What the callers of a connection share with its task: the bytes to send, the answers awaited, the inbox.
//!
//! One mutex over all of it, because the order matters across the parts: a command's bytes and its place in the
//! answer queue must be taken together, or two callers could swap answers. Nobody waits while holding it. The waiting
//! for room happens before, on two semaphores (commands and bytes), and their permits come back with the answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::consumer::Event;
use crate::error::ClientError;

/// How many bytes of commands without an answer (FIN, REQ, TOUCH, RDY, NOP) may wait for a server that does not read.
pub(crate) const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;

/// How many deliveries may wait for the caller. A server that keeps to RDY stays far below.
const INBOX_EVENTS_MAX: usize = 8192;

/// How many bytes of deliveries may wait for the caller.
const INBOX_BYTES_MAX: usize = 64 << 20;

/// A command that awaits an answer, and the room to give back when it comes.
#[derive(Debug)]
pub(crate) struct Awaited {
    reply: oneshot::Sender<Result<(), ClientError>>,
    room: Room,
}

impl Awaited {
    /// Hands the answer over; a caller that no longer listens does not want it.
    pub(crate) fn answer(self, answer: Result<(), ClientError>) -> Room {
        drop(self.reply.send(answer));
        self.room
    }
}

/// Permits taken from the two semaphores.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Room {
    pub(crate) commands: usize,
    pub(crate) bytes: usize,
}

/// The life of a connection after its handshake.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Commands are taken.
    Open,
    /// No caller is left or one closed it: what was taken is sent and its answers awaited, then it ends.
    Draining,
    /// Over, and why.
    Ended(Arc<ClientError>),
}

/// Whether the server sends messages on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivery {
    /// Never subscribed: a message would break the protocol.
    None,
    /// Subscribed.
    Open,
    /// CLS was answered: no further message comes.
    Stopped,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) outgoing: BytesMut,
    pub(crate) awaited: VecDeque<Awaited>,
    pub(crate) phase: Phase,
    pub(crate) delivery: Delivery,
    inbox: VecDeque<Event>,
    inbox_bytes: usize,
    /// The task found the inbox full and reads nothing until it is woken.
    pub(crate) reading_stopped: bool,
    pub(crate) driver: Option<Waker>,
    reader: Option<Waker>,
}

impl State {
    pub(crate) fn deliver(&mut self, event: Event) {
        self.inbox_bytes += event.body_bytes();
        self.inbox.push_back(event);
    }

    pub(crate) fn inbox_is_full(&self) -> bool {
        self.inbox.len() >= INBOX_EVENTS_MAX || self.inbox_bytes >= INBOX_BYTES_MAX
    }

    pub(crate) fn take_reader(&mut self) -> Option<Waker> {
        self.reader.take()
    }

    /// The error for a command that comes too late, if it does.
    fn refusal(&self) -> Option<ClientError> {
        match &self.phase {
            Phase::Open => None,
            Phase::Draining => Some(ClientError::NotSent(Arc::new(ClientError::Closed))),
            Phase::Ended(cause) => Some(ClientError::NotSent(Arc::clone(cause))),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    commands: Semaphore,
    bytes: Semaphore,
    in_flight_bytes_max: u32,
    ended: Notify,
}

impl Shared {
    pub(crate) fn new(in_flight_max: u32, in_flight_bytes_max: u32) -> Self {
        let permits = |count: u32| {
            usize::try_from(count)
                .unwrap_or(usize::MAX)
                .clamp(1, Semaphore::MAX_PERMITS)
        };
        Self {
            state: Mutex::new(State {
                outgoing: BytesMut::new(),
                awaited: VecDeque::new(),
                phase: Phase::Open,
                delivery: Delivery::None,
                inbox: VecDeque::new(),
                inbox_bytes: 0,
                reading_stopped: false,
                driver: None,
                reader: None,
            }),
            commands: Semaphore::new(permits(in_flight_max)),
            bytes: Semaphore::new(permits(in_flight_bytes_max)),
            in_flight_bytes_max: in_flight_bytes_max.max(1),
            ended: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits for room for a command of `bytes`, then sends it with `encode` and returns where its answer arrives.
    ///
    /// # Errors
    /// [`ClientError::NotSent`] if the connection is over.
    pub(crate) async fn send_awaited(
        &self,
        bytes: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<oneshot::Receiver<Result<(), ClientError>>, ClientError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.in_flight_bytes_max);
        // A closed semaphore means that the connection is over; `enqueue` then says why.
        if let Ok(permit) = self.commands.acquire().await {
            permit.forget();
        }
        if let Ok(permit) = self.bytes.acquire_many(bytes).await {
            permit.forget();
        }
        let (reply, answer) = oneshot::channel();
        let room = Room {
            commands: 1,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        self.enqueue(encode, Some(Awaited { reply, room }))?;
        Ok(answer)
    }

    /// Sends a command that is never answered with success.
    ///
    /// # Errors
    /// [`ClientError::SendBufferFull`] or [`ClientError::NotSent`].
    pub(crate) fn send_unanswered(&self, encode: impl FnOnce(&mut BytesMut)) -> Result<(), ClientError> {
        self.enqueue(encode, None)
    }

    fn enqueue(&self, encode: impl FnOnce(&mut BytesMut), awaited: Option<Awaited>) -> Result<(), ClientError> {
        let mut state = self.lock();
        if let Some(refusal) = state.refusal() {
            return Err(refusal);
        }
        match awaited {
            Some(awaited) => state.awaited.push_back(awaited),
            None if state.outgoing.len() >= SEND_BUFFER_BYTES_MAX => {
                return Err(ClientError::SendBufferFull {
                    limit_bytes: SEND_BUFFER_BYTES_MAX,
                });
            }
            None => {}
        }
        encode(&mut state.outgoing);
        let driver = state.driver.take();
        drop(state);
        wake(driver);
        Ok(())
    }

    /// Gives room back to waiting callers.
    pub(crate) fn release(&self, room: Room) {
        self.commands.add_permits(room.commands);
        self.bytes.add_permits(room.bytes);
    }

    /// The next event of a consumer; `Ok(None)` after the answer to CLS when nothing is left.
    pub(crate) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, ClientError>> {
        let mut state = self.lock();
        if let Some(event) = state.inbox.pop_front() {
            state.inbox_bytes -= event.body_bytes();
            let driver = if state.reading_stopped && !state.inbox_is_full() {
                state.driver.take()
            } else {
                None
            };
            drop(state);
            wake(driver);
            return Poll::Ready(Ok(Some(event)));
        }
        if state.delivery == Delivery::Stopped {
            return Poll::Ready(Ok(None));
        }
        if let Phase::Ended(cause) = &state.phase {
            return Poll::Ready(Err(ClientError::clone(cause)));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Moves all waiting events to `into`, without waiting.
    pub(crate) fn take_events(&self, into: &mut Vec<Event>) {
        let mut state = self.lock();
        into.extend(state.inbox.drain(..));
        state.inbox_bytes = 0;
        let driver = if state.reading_stopped {
            state.driver.take()
        } else {
            None
        };
        drop(state);
        wake(driver);
    }

    /// Takes no further command; the connection ends when all that was taken is sent and answered.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Draining;
        }
        let driver = state.driver.take();
        drop(state);
        wake(driver);
    }

    /// Waits for the end of the connection. `Ok` if this side ended it in order.
    pub(crate) async fn until_ended(&self) -> Result<(), ClientError> {
        loop {
            // Made before the look: a notification between the two is not lost.
            let ended = self.ended.notified();
            if let Phase::Ended(cause) = &self.lock().phase {
                return match &**cause {
                    ClientError::Closed => Ok(()),
                    cause => Err(cause.clone()),
                };
            }
            ended.await;
        }
    }

    /// The end, once: `first` goes to the oldest command that awaits an answer, `rest` to all others and to everything
    /// that comes later.
    pub(crate) fn end(&self, first: Option<ClientError>, rest: ClientError) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Ended(_)) {
            return;
        }
        let mut awaited = std::mem::take(&mut state.awaited);
        // Without a command that it answers, the server's error is the reason of the end itself.
        let cause = match (&first, awaited.is_empty()) {
            (Some(first), true) => first.clone(),
            _ => rest.clone(),
        };
        state.phase = Phase::Ended(Arc::new(cause));
        state.outgoing = BytesMut::new();
        let reader = state.take_reader();
        drop(state);
        if let Some(first) = first
            && let Some(oldest) = awaited.pop_front()
        {
            oldest.answer(Err(first));
        }
        for awaited in awaited {
            awaited.answer(Err(rest.clone()));
        }
        self.commands.close();
        self.bytes.close();
        wake(reader);
        self.ended.notify_waiters();
    }
}

/// Wakes outside the lock, so that the woken task does not find it taken.
pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The callers' side of a connection: when the last of them is gone, the connection drains and ends.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.drain();
    }
}
