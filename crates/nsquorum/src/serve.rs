//! `nsquorum serve`: from flags to a running node and back.
//!
//! The sockets are opened first and the data recovered behind them: supervisors and clients find the ports at once, HTTP says 500 and
//! 503 until the node has recovered, and TCP clients wait in the kernel's queue. Stopping goes the other way: no more connections, publishes
//! in progress are answered, consumers are closed, then the groups and the store.

mod addresses;
mod settings;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use nsquorum_broker::NodeDescription;
use nsquorum_environment::Environment;
use nsquorum_frontend::tls::{ClientTls, ServerTls};
use nsquorum_frontend::{ConnectionRegistry, FrontendConfig, HttpFrontend, StatsdPusher, TcpServer};
use nsquorum_http::{Gate, Listener, StopSignal, StopSource, TlsRequired};
use nsquorum_lookup::{Announcer, Directory, LookupFrontend, LookupServer, ProducerDescription, QuestionTimeouts};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::{LogFilter, ServeArgs, TlsRequirement};
use crate::cluster::Joining;
use crate::compose::{Node, NodeSettings};
use crate::descriptors;
use crate::exit::Exit;
use addresses::{Address, Addresses, write_ports_file};
pub(crate) use addresses::{host_name, resolve};
pub(crate) use signals::Signals;

/// How often the metrics that nobody reads are folded: without it histograms would keep every single value.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// Upper bounds of the buckets of all times, in seconds.
const SECONDS_BUCKETS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Runs a node until a signal or a failure.
pub(crate) fn run(args: &ServeArgs, log_filter: LogFilter) -> Result<(), Stopped> {
    stop_on_panic();
    descriptors::raise_limit();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.worker_threads {
        runtime.worker_threads(threads.get());
    }
    let runtime = runtime.enable_all().build().context("cannot start")?;
    runtime.block_on(serve(args, log_filter))
}

/// A panic is an invariant that does not hold. Only one task would end by it, and whoever waits for that task would wait for ever; so the
/// process ends instead, and what was answered OK is on disk.
fn stop_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        Exit::ImpossibleData.now()
    }));
}

/// Why a node did not start, and the code for it.
pub(crate) struct Stopped {
    pub(crate) exit: Exit,
    pub(crate) cause: anyhow::Error,
}

impl From<anyhow::Error> for Stopped {
    fn from(cause: anyhow::Error) -> Self {
        Self {
            exit: Exit::Failed,
            cause,
        }
    }
}

/// Open sockets.
struct Listeners {
    tcp: Listener,
    http: Option<Listener>,
    https: Option<Listener>,
    lookup_tcp: Option<Listener>,
    lookup_http: Option<Listener>,
    peer: Option<TcpListener>,
}

/// Those of them that speak HTTP.
struct WebListeners {
    http: Option<Listener>,
    https: Option<Listener>,
    lookup_http: Option<Listener>,
}

/// What stands behind the HTTP sockets once there is a broker.
struct Gates {
    http: Arc<Gate<HttpFrontend>>,
    lookup_http: Arc<Gate<LookupFrontend>>,
}

async fn serve(args: &ServeArgs, log_filter: LogFilter) -> Result<(), Stopped> {
    let mut signals = Signals::new()?;
    let environment = Environment::system();
    let started_at = environment.clock.wall();
    let config = Arc::new(config(args, started_at)?);
    let listeners = Listeners {
        tcp: addresses::listen_anywhere(&args.tcp_address, "--tcp-address")?,
        http: match args.http_address.as_str() {
            "" => None,
            address => Some(addresses::listen_anywhere(address, "--http-address")?),
        },
        https: match (args.https_address.as_str(), &config.tls) {
            ("", _) | (_, None) => None,
            (address, Some(_)) => Some(addresses::listen(address, "--https-address")?),
        },
        lookup_tcp: match args.lookup.lookup_tcp_address.as_str() {
            "" => None,
            address => Some(addresses::listen(address, "--lookup-tcp-address")?),
        },
        lookup_http: match args.lookup.lookup_http_address.as_str() {
            "" => None,
            address => Some(addresses::listen(address, "--lookup-http-address")?),
        },
        peer: match args.cluster_seeds.is_empty() {
            true => None,
            false => Some(addresses::listen_for_peers(&args.peer_address, "--peer-address")?),
        },
    };
    let addresses = listeners.addresses()?;
    addresses.log();
    let prometheus = install_metrics()?;

    let (stop, stopped) = StopSource::new();
    let mut servers = JoinSet::new();
    let (tcp, peer) = (listeners.tcp, listeners.peer);
    let web = WebListeners {
        http: listeners.http,
        https: listeners.https,
        lookup_http: listeners.lookup_http,
    };
    let directory = Directory::new(environment.clone(), args.lookup.lifetimes());
    if let Some(listener) = listeners.lookup_tcp {
        let server = lookup_server(directory.clone(), &config, &addresses);
        servers.spawn(server.serve(listener, stopped.clone()));
    }
    let gates = open_http(&mut servers, web, &config, args.tls.requirement(), &stopped)?;

    let joining = match peer {
        Some(listener) => Some(Joining::new(args, listener, environment.clone())?),
        None => None,
    };
    let description = description(args, &config, &addresses);
    let (lookupd_addresses, announced_at) = watch::channel(args.lookup.lookupd_tcp_address.clone());
    let announcer = Announcer::new(announced_at);
    let settings = NodeSettings::of(args, announcer.channel_source(question_timeouts(args)));
    let recovering = Node::open(settings, joining, description.clone(), environment);
    let node = tokio::select! {
        node = Box::pin(recovering) => node?,
        () = signals.received() => return Ok(()),
    };

    let registry = ConnectionRegistry::default();
    let broker = node.broker();
    let ports = (addresses.tcp.port(), addresses.http_port());
    gates.http.open(HttpFrontend::new(
        broker.clone(),
        Arc::clone(&config),
        settings::effective(args, &config, &description, log_filter, lookupd_addresses),
        registry.clone(),
        Some(prometheus.clone()),
        ports,
    ));
    if let Some(statsd) = args
        .metrics
        .statsd(&description.broadcast_address, description.http_port)
    {
        servers.spawn(StatsdPusher::new(&broker, statsd).run(broker.clone(), stopped.clone()));
    }
    let description = ProducerDescription::from(description);
    gates
        .lookup_http
        .open(LookupFrontend::of_node(directory, broker.clone(), description.clone()));
    if let Some(held) = broker.held_topics() {
        servers.spawn(announcer.run(held, description, stopped.clone()));
    }
    servers.spawn(TcpServer::new(broker, Arc::clone(&config), registry).serve(tcp, stopped.clone()));
    servers.spawn(fold_metrics(prometheus, stopped));
    if let Some(path) = &args.ports_file {
        write_ports_file(path, &addresses)?;
    }
    tracing::info!(data_path = %args.data_path.display(), "serving");

    signals.received().await;
    tracing::info!("stopping");
    stop.stop();
    while servers.join_next().await.is_some() {}
    node.stop().await?;
    tracing::info!("stopped");
    Ok(())
}

impl Listeners {
    fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            tcp: Address::of(&self.tcp)?,
            http: self.http.as_ref().map(Address::of).transpose()?,
            https: self.https.as_ref().map(Address::of).transpose()?,
            lookup_tcp: self.lookup_tcp.as_ref().map(Address::of).transpose()?,
            lookup_http: self.lookup_http.as_ref().map(Address::of).transpose()?,
        })
    }
}

fn open_http(
    servers: &mut JoinSet<()>,
    listeners: WebListeners,
    config: &FrontendConfig,
    tls_required: TlsRequirement,
    stopped: &StopSignal,
) -> anyhow::Result<Gates> {
    let gates = Gates {
        http: Arc::new(Gate::new()),
        lookup_http: Arc::new(Gate::new()),
    };
    let https_port = listeners.https.as_ref().map(Address::of).transpose()?;
    let https_port = https_port.and_then(|address| address.port()).unwrap_or_default();
    match (listeners.http, tls_required) {
        (None, _) => {}
        (Some(listener), TlsRequirement::Everybody) => {
            let refusal = Arc::new(TlsRequired { https_port });
            servers.spawn(nsquorum_http::serve(listener, refusal, stopped.clone()));
        }
        (Some(listener), TlsRequirement::TcpClients | TlsRequirement::Nobody) => {
            servers.spawn(nsquorum_http::serve(listener, Arc::clone(&gates.http), stopped.clone()));
        }
    }
    if let (Some(listener), Some(tls)) = (listeners.https, &config.tls) {
        servers.spawn(nsquorum_http::serve_tls(
            listener,
            tls.acceptor(),
            Arc::clone(&gates.http),
            stopped.clone(),
        ));
    }
    if let Some(listener) = listeners.lookup_http {
        servers.spawn(nsquorum_http::serve(
            listener,
            Arc::clone(&gates.lookup_http),
            stopped.clone(),
        ));
    }
    Ok(gates)
}

fn config(args: &ServeArgs, started_at: nsquorum_environment::WallTime) -> anyhow::Result<FrontendConfig> {
    let hostname = host_name();
    let building = "failed to build TLS config";
    let tls = args.tls.settings();
    let roots = args.tls.tls_root_ca_file.as_deref();
    let client_tls = || ClientTls::load(roots, args.tls.min_version());
    Ok(FrontendConfig {
        limits: args.limits().map_err(anyhow::Error::msg)?,
        features: args.session.features(),
        tls: tls
            .map(|settings| ServerTls::load(&settings))
            .transpose()
            .context(building)?,
        tls_required: args.tls.requirement() != TlsRequirement::Nobody,
        auth: args.session.auth(client_tls).context(building)?,
        max_channel_consumers: args.session.max_channel_consumers(),
        topology: args.session.topology(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        publish_timeout: args.publish_timeout,
        broadcast_address: args.broadcast_address.clone().unwrap_or_else(|| hostname.clone()),
        hostname,
        started_at,
        // Damage on the disk does not heal; another replica, or a backup, has to take over.
        on_corruption: Arc::new(|_| Exit::ImpossibleData.now()),
    })
}

/// How long nsqlookupds are asked for the channels of a new topic. Half of the time of the publishes that wait for it is left to have them stored.
fn question_timeouts(args: &ServeArgs) -> QuestionTimeouts {
    QuestionTimeouts {
        connect: args.session.http_client_connect_timeout,
        request: args.session.http_client_request_timeout,
        total: args.publish_timeout / 2,
    }
}

/// Where stock nsqds register.
fn lookup_server(directory: Directory, config: &FrontendConfig, addresses: &Addresses) -> LookupServer {
    let port = |address: &Option<Address>| address.as_ref().and_then(Address::port).unwrap_or_default();
    LookupServer::new(
        directory,
        (config.broadcast_address.clone(), config.hostname.clone()),
        (port(&addresses.lookup_tcp), port(&addresses.lookup_http)),
        config.features.version.clone(),
    )
}

/// How clients reach this node.
fn description(args: &ServeArgs, config: &FrontendConfig, addresses: &Addresses) -> NodeDescription {
    // A socket in the file system has no port that others could be told.
    let or_real = |port: u16, real: Option<u16>| if port == 0 { real.unwrap_or_default() } else { port };
    NodeDescription {
        hostname: config.hostname.clone(),
        broadcast_address: config.broadcast_address.clone(),
        tcp_port: or_real(args.broadcast_tcp_port, addresses.tcp.port()),
        http_port: or_real(args.broadcast_http_port, addresses.http_port()),
        version: config.features.version.clone(),
        topology_zone: config.features.topology_zone.clone(),
        topology_region: config.features.topology_region.clone(),
        release: config.release.clone(),
    }
}

fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot collect metrics")
}

async fn fold_metrics(prometheus: PrometheusHandle, mut stopped: StopSignal) {
    loop {
        tokio::select! {
            () = stopped.stopped() => return,
            () = tokio::time::sleep(METRICS_UPKEEP) => prometheus.run_upkeep(),
        }
    }
}
