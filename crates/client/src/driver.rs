//! The one task of a connection: it writes what the callers put into the common buffer, reads frames, and hands
//! answers and deliveries out.
//!
//! A hand-written future rather than a `select!` over channels: per turn it takes the lock once to fetch all bytes to
//! send and once to hand out all frames of a read, whatever their number, and it is woken at most once in between.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use nsquorum_protocol::{Frame, FrameDecoder, encode};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, Sleep};

use crate::consumer::{Event, Message};
use crate::error::{ClientError, ServerError};
use crate::shared::{Awaited, Delivery, Phase, Room, SEND_BUFFER_BYTES_MAX, Shared, State, wake};

/// How much a read asks for: the frames of many small messages at once.
const READ_BYTES: usize = 64 << 10;

/// After so many turns the task lets others run.
const TURNS_MAX: usize = 32;

/// How long to wait at the end for the server to close its side.
const FAREWELL: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    stream: TcpStream,
    decoder: FrameDecoder,
    incoming: BytesMut,
    /// Swapped with the shared buffer when it has been sent: two buffers, no copies between them.
    sending: BytesMut,
    silence: Option<Silence>,
    /// Set when all is sent and answered: how long the server may take to close its side.
    farewell: Option<Pin<Box<Sleep>>>,
    answered: Vec<(Awaited, Result<(), ClientError>)>,
}

/// So many ticks after the last byte the server has been silent for two whole intervals: it is gone without having said so.
const SILENT_TICKS: u32 = 3;

/// Watches for a server that says nothing any more.
struct Silence {
    interval: Duration,
    ticks: Interval,
    /// Ticks since the last byte.
    ticked: u32,
}

/// Whether a turn did something, so that another one may do more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Progress,
    Idle,
}

/// The connection is over: the error for the oldest awaited command (if it is special) and for all others.
struct End {
    first: Option<ClientError>,
    rest: ClientError,
}

impl From<ClientError> for End {
    fn from(rest: ClientError) -> Self {
        Self { first: None, rest }
    }
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: TcpStream,
        decoder: FrameDecoder,
        incoming: BytesMut,
        heartbeat: Option<Duration>,
    ) -> Self {
        let silence = heartbeat.map(|interval| {
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Silence {
                interval,
                ticks,
                ticked: 0,
            }
        });
        let (sending, answered) = (BytesMut::new(), Vec::new());
        Self {
            shared,
            stream,
            decoder,
            incoming,
            sending,
            silence,
            farewell: None,
            answered,
        }
    }

    fn poll_to_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS_MAX {
            let turn = self.turn(cx);
            match turn {
                Err(end) => return Poll::Ready(end),
                Ok(Turn::Progress) => {}
                Ok(Turn::Idle) => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, End> {
        if self.farewell.is_some() {
            return self.poll_farewell(cx);
        }
        let read = self.poll_read(cx)?;
        let written = self.poll_write(cx)?;
        self.poll_silence(cx)?;
        let progress = read == Turn::Progress || written == Turn::Progress;
        Ok(if progress { Turn::Progress } else { Turn::Idle })
    }

    /// Sends what waits. Progress means that the shared buffer may have filled again meanwhile.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Turn, End> {
        if self.sending.is_empty() {
            self.sending.clear();
            let mut state = self.shared.lock();
            if state.outgoing.is_empty() {
                if matches!(state.phase, Phase::Draining) && state.awaited.is_empty() {
                    self.farewell = Some(Box::pin(tokio::time::sleep(FAREWELL)));
                    return Ok(Turn::Progress);
                }
                remember(&mut state.driver, cx.waker());
                return Ok(Turn::Idle);
            }
            std::mem::swap(&mut state.outgoing, &mut self.sending);
        }
        while self.sending.has_remaining() {
            match pin!(self.stream.write_buf(&mut self.sending)).poll(cx) {
                Poll::Pending => {
                    // The socket wakes this task; callers only add to the buffer.
                    return Ok(Turn::Idle);
                }
                Poll::Ready(Ok(0)) => return Err(ClientError::ClosedByServer.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    return Err(self.last_words(cx).unwrap_or_else(|| ClientError::from(error).into()));
                }
            }
        }
        Ok(Turn::Progress)
    }

    /// Half-closes and reads to the end. Closing at once would make the kernel answer messages under way with a reset,
    /// which can destroy the last FINs before the server reads them; the server's own close tells that it read them.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Result<Turn, End> {
        let over = || End::from(ClientError::Closed);
        if self
            .farewell
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
        {
            return Err(over());
        }
        if Pin::new(&mut self.stream)
            .poll_shutdown(cx)
            .map_err(|_| over())?
            .is_pending()
        {
            return Ok(Turn::Idle);
        }
        self.incoming.clear();
        self.incoming.reserve(READ_BYTES);
        match pin!(self.stream.read_buf(&mut self.incoming)).poll(cx) {
            Poll::Pending => Ok(Turn::Idle),
            Poll::Ready(Ok(0) | Err(_)) => Err(over()),
            Poll::Ready(Ok(_)) => Ok(Turn::Progress),
        }
    }

    /// A failed write often follows an error frame that says why: it is still in the receive buffer.
    fn last_words(&mut self, cx: &mut Context<'_>) -> Option<End> {
        loop {
            match self.poll_read(cx) {
                Ok(Turn::Progress) => {}
                Ok(Turn::Idle) => return None,
                Err(End {
                    rest: ClientError::Io(_) | ClientError::ClosedByServer,
                    ..
                }) => return None,
                Err(end) => return Some(end),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Turn, End> {
        {
            let mut state = self.shared.lock();
            state.reading_stopped = state.inbox_is_full();
            if state.reading_stopped {
                remember(&mut state.driver, cx.waker());
                return Ok(Turn::Idle);
            }
        }
        // Bodies that a caller still holds are parts of the buffer: a new one only when little of this one is left.
        let spare = self.incoming.capacity() - self.incoming.len();
        if spare < self.decoder.wanted().max(READ_BYTES / 8) {
            self.incoming.reserve(self.decoder.wanted().max(READ_BYTES));
        }
        match pin!(self.stream.read_buf(&mut self.incoming)).poll(cx) {
            Poll::Pending => Ok(Turn::Idle),
            Poll::Ready(Ok(0)) => Err(ClientError::ClosedByServer.into()),
            Poll::Ready(Ok(_)) => {
                if let Some(silence) = &mut self.silence {
                    silence.ticked = 0;
                }
                self.hand_out()?;
                Ok(Turn::Progress)
            }
            Poll::Ready(Err(error)) => Err(ClientError::from(error).into()),
        }
    }

    /// Decodes everything that was read, under one lock, and wakes the callers after it.
    fn hand_out(&mut self) -> Result<(), End> {
        let mut state = self.shared.lock();
        let outcome = loop {
            match self.decoder.decode(&mut self.incoming) {
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => {
                    if let Err(end) = take_frame(&mut state, frame, &mut self.answered) {
                        break Err(end);
                    }
                }
                Err(error) => break Err(ClientError::Protocol(error.to_string()).into()),
            }
        };
        let reader = state.take_reader();
        drop(state);
        wake(reader);
        let mut room = Room::default();
        for (awaited, answer) in self.answered.drain(..) {
            let freed = awaited.answer(answer);
            room = Room {
                commands: room.commands + freed.commands,
                bytes: room.bytes + freed.bytes,
            };
        }
        self.shared.release(room);
        outcome
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(silence) = &mut self.silence else {
            return Ok(());
        };
        while silence.ticks.poll_tick(cx).is_ready() {
            // What this side refuses to read is not the server's silence.
            silence.ticked = match self.shared.lock().reading_stopped {
                true => 0,
                false => silence.ticked + 1,
            };
            if silence.ticked >= SILENT_TICKS {
                return Err(ClientError::Silent(silence.interval * 2).into());
            }
        }
        Ok(())
    }
}

fn remember(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) if known.will_wake(waker) => {}
        slot => *slot = Some(waker.clone()),
    }
}

/// One frame of the server.
fn take_frame(
    state: &mut State,
    frame: Frame,
    answered: &mut Vec<(Awaited, Result<(), ClientError>)>,
) -> Result<(), End> {
    match frame {
        Frame::Message {
            timestamp_ns,
            attempts,
            id,
            body,
        } => {
            if state.delivery == Delivery::None {
                return Err(ClientError::Protocol("a message without a subscription".to_owned()).into());
            }
            state.deliver(Event::Message(Message {
                id,
                attempts,
                timestamp_ns,
                body,
            }));
        }
        Frame::Response(payload) => match &payload[..] {
            b"OK" => match state.awaited.pop_front() {
                Some(awaited) => answered.push((awaited, Ok(()))),
                None => return Err(ClientError::Protocol("an OK that nothing awaits".to_owned()).into()),
            },
            b"_heartbeat_" => {
                // A server that reads nothing gets no more of them.
                if state.outgoing.len() < SEND_BUFFER_BYTES_MAX {
                    encode::nop(&mut state.outgoing);
                }
            }
            b"CLOSE_WAIT" => state.delivery = Delivery::Stopped,
            other => {
                let text = format!("an unknown response: {}", ServerError::new(other));
                return Err(ClientError::Protocol(text).into());
            }
        },
        Frame::Error(payload) => {
            let error = ServerError::new(&payload);
            if !error.keeps_connection() {
                let rest = ClientError::EndedByServer(error.clone());
                return Err(End {
                    first: Some(ClientError::Server(error)),
                    rest,
                });
            }
            state.deliver(Event::Refused(error));
        }
    }
    Ok(())
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Poll::Ready(End { first, rest }) = this.poll_to_end(cx) else {
            return Poll::Pending;
        };
        this.shared.end(first, rest);
        Poll::Ready(())
    }
}

impl Drop for Driver {
    /// A runtime that goes away drops its tasks: nobody may be left waiting for an answer.
    fn drop(&mut self) {
        self.shared.end(None, ClientError::Closed);
    }
}
