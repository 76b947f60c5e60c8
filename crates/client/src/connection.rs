//! Connecting and the handshake: TCP, the magic, IDENTIFY.

use std::sync::Arc;

use bytes::BytesMut;
use nsquorum_protocol::{ChannelName, Frame, FrameDecoder, TopicName, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::consumer::Consumer;
use crate::driver::Driver;
use crate::error::{ClientError, ServerError};
use crate::identify::{IdentifyOptions, ServerSettings};
use crate::producer::Producer;
use crate::shared::{Handle, Shared};

/// An identified connection that has not yet become a [`Producer`] or a [`Consumer`].
///
/// It has no task yet, so it answers no heartbeats: turn it into one of the two soon.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
    incoming: BytesMut,
    options: IdentifyOptions,
    settings: ServerSettings,
}

impl Connection {
    /// Connects to `host:port` and identifies, within `options.connect_timeout`.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::HandshakeTimeout`], [`ClientError::Handshake`], or
    /// [`ClientError::Server`] if the server refuses an option.
    pub async fn connect(address: &str, options: IdentifyOptions) -> Result<Self, ClientError> {
        let after = options.connect_timeout;
        match tokio::time::timeout(after, Self::handshake(address, options)).await {
            Ok(connected) => connected,
            Err(_) => Err(ClientError::HandshakeTimeout {
                address: address.to_owned(),
                after,
            }),
        }
    }

    async fn handshake(address: &str, options: IdentifyOptions) -> Result<Self, ClientError> {
        let connect_error = |source| ClientError::Connect {
            address: address.to_owned(),
            source: Arc::new(source),
        };
        let mut stream = TcpStream::connect(address).await.map_err(connect_error)?;
        // Every wait of this protocol is for a small frame: Nagle's delay would add to each.
        stream.set_nodelay(true).map_err(connect_error)?;
        let mut outgoing = BytesMut::from(&encode::MAGIC_V2[..]);
        encode::identify(&mut outgoing, &options.body());
        stream.write_all(&outgoing).await?;

        let mut decoder = FrameDecoder::new(options.frame_bytes_max as usize);
        let mut incoming = BytesMut::new();
        loop {
            let frame = decoder
                .decode(&mut incoming)
                .map_err(|error| ClientError::Handshake(error.to_string()))?;
            match frame {
                Some(Frame::Response(payload)) => {
                    let settings = ServerSettings::parse(&payload)?;
                    return Ok(Self {
                        stream,
                        decoder,
                        incoming,
                        options,
                        settings,
                    });
                }
                Some(Frame::Error(payload)) => return Err(ClientError::Server(ServerError::new(&payload))),
                Some(Frame::Message { .. }) => {
                    return Err(ClientError::Handshake("a message instead of an answer".to_owned()));
                }
                None => {
                    if stream.read_buf(&mut incoming).await? == 0 {
                        return Err(ClientError::ClosedByServer);
                    }
                }
            }
        }
    }

    /// What the server answered to IDENTIFY.
    #[must_use]
    pub fn settings(&self) -> &ServerSettings {
        &self.settings
    }

    /// Starts the connection's task and returns the publishing side. Needs a tokio runtime.
    #[must_use]
    pub fn into_producer(self) -> Producer {
        let (handle, _) = self.start();
        Producer::new(handle)
    }

    /// Subscribes and then sends RDY `ready`, the most messages that may be in flight here: a ceiling, not a credit, so
    /// there is nothing to renew. It is lowered to the server's `max_rdy_count`.
    ///
    /// # Errors
    /// [`ClientError::Server`] if SUB is refused, or the end of the connection.
    pub async fn subscribe(
        self,
        topic: &TopicName,
        channel: &ChannelName,
        ready: u32,
    ) -> Result<Consumer, ClientError> {
        let (handle, settings) = self.start();
        let mut consumer = Consumer::new(handle, settings);
        consumer.subscribe(topic, channel).await?;
        consumer.set_rdy(ready)?;
        Ok(consumer)
    }

    fn start(self) -> (Handle, ServerSettings) {
        let Self {
            stream,
            decoder,
            incoming,
            options,
            settings,
        } = self;
        let shared = Arc::new(Shared::new(options.in_flight_max, options.in_flight_bytes_max));
        let driver = Driver::new(
            Arc::clone(&shared),
            stream,
            decoder,
            incoming,
            options.heartbeat.interval(),
        );
        tokio::spawn(driver);
        (Handle(shared), settings)
    }
}
