//! A node for tests.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use nsquorum_broker::{Broker, BrokerConfig, Topology};
use nsquorum_consensus::{Cluster, ClusterNode, ConsensusOptions, NodeIdentity};
use nsquorum_environment::Environment;
use nsquorum_frontend::tls::ServerTls;
use nsquorum_frontend::{
    AuthSettings, ConnectionRegistry, EffectiveSettings, FrontendConfig, HttpFrontend, LogLevel, Setting, TcpServer,
};
use nsquorum_http::{StopSignal, StopSource};
use nsquorum_protocol::{Frame, FrameDecoder, Limits, ServerFeatures, TopicName, encode, frame};
use nsquorum_storage::memory::Durability;
use nsquorum_storage::{MemoryStore, NodeStore as _};
use nsquorum_topic::{NodeId, NodeIncarnation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Far beyond what anything here takes; only a hang reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct TestNode {
    pub(crate) tcp: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) stop: StopSource,
    pub(crate) server: JoinHandle<()>,
    pub(crate) config: Arc<FrontendConfig>,
    pub(crate) registry: ConnectionRegistry,
    pub(crate) stopped: StopSignal,
    disk_runs: Arc<AtomicBool>,
    _cluster: Arc<ClusterNode>,
}

pub(crate) struct Settings {
    pub(crate) publish_timeout: Duration,
    pub(crate) publish_bytes_max: usize,
    pub(crate) features: ServerFeatures,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) tls_required: bool,
    pub(crate) max_channel_consumers: Option<NonZeroUsize>,
    pub(crate) topology: Option<Topology>,
    pub(crate) auth: Option<AuthSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            publish_timeout: Duration::from_secs(30),
            publish_bytes_max: 64 << 20,
            features: ServerFeatures::default(),
            tls: None,
            tls_required: false,
            max_channel_consumers: None,
            topology: None,
            auth: None,
        }
    }
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let environment = Environment::system();
        let store = MemoryStore::new(Durability::Stepped);
        let disk_runs = Arc::new(AtomicBool::new(true));
        tokio::spawn(run_disk(store.clone(), Arc::clone(&disk_runs)));
        let space = store.clone();
        let broker = Broker::new(BrokerConfig {
            ephemeral_depth_max: 10_000,
            known_channels: None,
            environment: environment.clone(),
            latency: None,
            publish_bytes_max: settings.publish_bytes_max,
            tail_bytes_max: 8 << 20,
            space: Arc::new(move || space.space()),
        });
        let identity = NodeIdentity {
            node: NodeId::new(1),
            incarnation: NodeIncarnation::new(1),
        };
        let options = ConsensusOptions {
            store,
            environment: environment.clone(),
            identity,
            checkpoint_bytes: 64 << 20,
        };
        let cluster = ClusterNode::start(options, Arc::new(broker.clone()))
            .await
            .expect("a new cluster");
        let cluster = Arc::new(cluster);
        broker.connect(Arc::clone(&cluster) as Arc<dyn Cluster>);

        let config = Arc::new(FrontendConfig {
            limits: Limits::default(),
            features: settings.features,
            tls: settings.tls,
            tls_required: settings.tls_required,
            auth: settings.auth,
            max_channel_consumers: settings.max_channel_consumers,
            topology: settings.topology,
            release: "0.0.0".to_owned(),
            publish_timeout: settings.publish_timeout,
            broadcast_address: "node.example".to_owned(),
            hostname: "node".to_owned(),
            started_at: environment.clock.wall(),
            on_corruption: Arc::new(|corruption| panic!("{corruption:?}")),
        });
        let registry = ConnectionRegistry::default();
        let (stop, stopped) = StopSource::new();
        let any = "127.0.0.1:0".parse().expect("an address");
        let tcp_listener = nsquorum_http::bind(any).expect("a port");
        let http_listener = nsquorum_http::bind(any).expect("a port");
        let tcp = tcp_listener.local_addr().expect("bound");
        let http = http_listener.local_addr().expect("bound");
        let ports = (Some(tcp.port()), Some(http.port()));
        let frontend = HttpFrontend::new(
            broker.clone(),
            Arc::clone(&config),
            effective(),
            registry.clone(),
            None,
            ports,
        );
        tokio::spawn(nsquorum_http::serve(http_listener, Arc::new(frontend), stopped.clone()));
        let server = TcpServer::new(broker.clone(), Arc::clone(&config), registry.clone());
        let server = server.serve(tcp_listener, stopped.clone());
        let server = tokio::spawn(server);
        Self {
            tcp,
            http,
            broker,
            stop,
            server,
            config,
            registry,
            stopped,
            disk_runs,
            _cluster: cluster,
        }
    }

    /// Nothing becomes durable from now on.
    pub(crate) fn stop_disk(&self) {
        self.disk_runs.store(false, Ordering::SeqCst);
    }

    pub(crate) fn run_disk(&self) {
        self.disk_runs.store(true, Ordering::SeqCst);
    }

    /// Publishes once, so that the topic exists and its leader serves.
    pub(crate) async fn warm_up(&self) {
        let mut client = Client::open(self).await;
        client.publish(b"first").await;
        assert_eq!(client.frame().await, Some(ok()));
    }
}

async fn run_disk(store: MemoryStore, runs: Arc<AtomicBool>) {
    loop {
        while runs.load(Ordering::SeqCst) && store.step() {}
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A client that sends what a test writes.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    frames: FrameDecoder,
    input: BytesMut,
}

impl Client {
    /// Connects and sends the magic.
    pub(crate) async fn open(node: &TestNode) -> Self {
        let stream = TcpStream::connect(node.tcp).await.expect("the node listens");
        let mut client = Self {
            stream,
            frames: FrameDecoder::new(8 << 20),
            input: BytesMut::new(),
        };
        client.send(b"  V2").await;
        client
    }

    /// A consumer of topic `t`.
    pub(crate) async fn subscribed(node: &TestNode, channel: &str, ready: u32) -> Self {
        let mut client = Self::open(node).await;
        client.send(format!("SUB t {channel}\nRDY {ready}\n").as_bytes()).await;
        assert_eq!(client.frame().await, Some(ok()));
        client
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.expect("the node reads");
    }

    pub(crate) async fn publish(&mut self, body: &[u8]) {
        self.send(&publish(body)).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.frames.decode(&mut self.input).expect("well-formed frames") {
                return Some(frame);
            }
            let count = within(self.stream.read_buf(&mut self.input)).await.expect("not reset");
            if count == 0 {
                assert!(self.input.is_empty(), "the connection ended within a frame");
                return None;
            }
        }
    }

    /// The next frame, which has to be a message: number, attempts, body.
    pub(crate) async fn message(&mut self) -> (u64, u16, Vec<u8>) {
        loop {
            match self.frame().await {
                Some(Frame::Message { attempts, id, body, .. }) => {
                    return (id.to_seq().expect("an own id"), attempts, body.to_vec());
                }
                Some(Frame::Response(data)) if &data[..] == frame::HEARTBEAT => {}
                other => panic!("not a message: {other:?}"),
            }
        }
    }

    pub(crate) async fn identify(&mut self, json: &str) {
        let mut bytes = BytesMut::new();
        encode::identify(&mut bytes, json.as_bytes());
        self.send(&bytes).await;
        assert_eq!(self.frame().await, Some(ok()));
    }
}

pub(crate) fn publish(body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode::publish(&mut bytes, &topic(), body);
    bytes
}

pub(crate) fn topic() -> TopicName {
    TopicName::try_from("t").expect("valid")
}

pub(crate) fn ok() -> Frame {
    Frame::Response(frame::OK.into())
}

pub(crate) fn heartbeat() -> Frame {
    Frame::Response(frame::HEARTBEAT.into())
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("no hang")
}

/// Some settings of each kind.
pub(crate) fn effective() -> EffectiveSettings {
    let fixed = [
        ("broadcast_address", Setting::Text("node.example".to_owned())),
        ("tls_cert", Setting::Text(String::new())),
        ("max_rdy_count", Setting::Integer(2500)),
        ("msg_timeout", Setting::Duration(Duration::from_secs(60))),
        ("snappy", Setting::Boolean(true)),
        ("auth_http_addresses", Setting::Texts(vec!["a:1".to_owned()])),
        ("e2e_processing_latency_percentiles", Setting::Numbers(vec![0.99])),
    ];
    EffectiveSettings::new(fixed, LogLevel::Info, |_| {}, tokio::sync::watch::channel(Vec::new()).0)
}
