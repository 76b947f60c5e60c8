//! Accepting and serving HTTP/1 connections.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::body::drain;
use crate::expectations::{answered_by_go, still_waits};
use crate::{HttpError, Listener, Request, Response, Socket, StopSignal};

/// Connections served at once; the next ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16_384;
/// How long requests in progress may take once the server stops.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Rest after a failed accept (no file descriptors left): without it the loop would spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// The answer to one request. A panic that does not end the process is answered with 500 INTERNAL_ERROR, as nsqd does.
    ///
    /// What it leaves of the body unread is read and dropped afterwards: a client that goes on using the connection finds it alive, and
    /// one that was refused in the middle of a big body gets to see the refusal.
    fn handle(&self, request: &mut Request) -> impl Future<Output = Response> + Send;
}

/// Serves connections until `stop`, then lets requests in progress end (up to 5 s).
pub async fn serve<S: Service>(listener: impl Into<Listener>, service: Arc<S>, stop: StopSignal) {
    let connection_stop = stop.clone();
    accept(listener.into(), stop, move |socket| {
        serve_connection(socket, Arc::clone(&service), connection_stop.clone())
    })
    .await;
}

/// As [`serve`], over TLS.
pub async fn serve_tls<S: Service>(
    listener: impl Into<Listener>,
    acceptor: TlsAcceptor,
    service: Arc<S>,
    stop: StopSignal,
) {
    let connection_stop = stop.clone();
    accept(listener.into(), stop, move |socket| {
        let (acceptor, service, stop) = (acceptor.clone(), Arc::clone(&service), connection_stop.clone());
        async move {
            match tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => serve_connection(stream, service, stop).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    })
    .await;
}

/// Accepts connections and runs what `connection` makes of each.
async fn accept<F>(listener: Listener, mut stop: StopSignal, connection: impl Fn(Socket) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.stopped() => break,
            accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&permits).acquire_owned().await;
                (listener.accept().await, permit)
            } => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            (Ok((stream, _)), permit) => {
                drop(stream.set_nodelay());
                let connection = connection(stream);
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is left after the bound is aborted with the set.
    drop(tokio::time::timeout(STOP_TIME_MAX, ended).await);
}

async fn answer<S: Service>(service: &S, request: &mut Request) -> Response {
    let mut answering = pin!(service.handle(request));
    // Whoever panicked is not asked again, and the process's hook has said what happened.
    let answered = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(cx))) {
            Ok(answered) => answered.map(Some),
            Err(_) => Poll::Ready(None),
        },
    );
    match answered.await {
        Some(response) => response,
        None => HttpError::internal("INTERNAL_ERROR").into_response(),
    }
}

async fn serve_connection<S: Service, T>(stream: T, service: Arc<S>, mut stop: StopSignal)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move {
            let mut request = request;
            if let Some(answer) = answered_by_go(&request) {
                return Ok::<_, Infallible>(answer);
            }
            let mut response = answer(&*service, &mut request).await;
            if still_waits(&request) || !drain(request.body_mut()).await {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    });
    let connection = http1::Builder::new()
        .title_case_headers(true)
        .half_close(true)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
