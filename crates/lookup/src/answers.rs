//! Answers whose keys have nsqlookupd's order.

use serde::Serialize;

use crate::ProducerDescription;
use crate::registrations::RegisteredNode;

/// GET /lookup. `producers` is never null: clients take that for a broken server.
#[derive(Serialize)]
pub(crate) struct LookupAnswer {
    pub(crate) channels: Vec<String>,
    pub(crate) producers: Vec<ProducerDescription>,
}

/// GET /nodes.
#[derive(Serialize)]
pub(crate) struct NodesAnswer {
    pub(crate) producers: Vec<NodeAnswer>,
}

/// One node, with two lists of equal length: nsqadmin reads them side by side and panics if they differ.
#[derive(Serialize)]
pub(crate) struct NodeAnswer {
    #[serde(flatten)]
    producer: ProducerDescription,
    tombstones: Vec<bool>,
    topics: Vec<String>,
}

impl From<RegisteredNode> for NodeAnswer {
    fn from(node: RegisteredNode) -> Self {
        let named = node
            .topics
            .into_iter()
            .map(|(topic, is_tombstoned)| (topic.to_string(), is_tombstoned));
        let (topics, tombstones) = named.unzip();
        Self {
            producer: node.producer,
            tombstones,
            topics,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer() -> ProducerDescription {
        ProducerDescription {
            remote_address: "10.0.0.1:4150".to_owned(),
            hostname: "h1".to_owned(),
            broadcast_address: "n1".to_owned(),
            tcp_port: 4150,
            http_port: 4151,
            version: "1.3.0".to_owned(),
            topology_zone: String::new(),
            topology_region: String::new(),
        }
    }

    const FIELDS: &str = r#""remote_address":"10.0.0.1:4150","hostname":"h1","broadcast_address":"n1","tcp_port":4150,"http_port":4151,"version":"1.3.0","topology_zone":"","topology_region":"""#;

    #[test]
    fn lookup_has_nsqlookupds_bytes() {
        let answer = LookupAnswer {
            channels: vec!["c1".to_owned()],
            producers: vec![producer()],
        };
        let expected = format!(r#"{{"channels":["c1"],"producers":[{{{FIELDS}}}]}}"#);
        assert_eq!(serde_json::to_string(&answer).unwrap(), expected);
    }

    #[test]
    fn nodes_has_nsqlookupds_bytes() {
        let node = RegisteredNode {
            producer: producer(),
            topics: vec![("t1".parse().unwrap(), false)],
        };
        let expected = format!(r#"{{"producers":[{{{FIELDS},"tombstones":[false],"topics":["t1"]}}]}}"#);
        assert_eq!(
            serde_json::to_string(&NodesAnswer {
                producers: vec![node.into()]
            })
            .unwrap(),
            expected
        );
    }
}
