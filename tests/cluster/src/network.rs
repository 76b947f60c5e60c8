//! A network of its own for each node, and cuts between them.
//!
//! The test runs itself again in a new network namespace, which becomes a router: each node has a namespace with one cable to it, so the test reaches
//! all nodes whatever is cut between them. A cut is a rule of the router that drops, without a word, what comes from one address for another: one
//! direction at a time, in the middle of established connections, and no node notices anything but silence. The namespaces have no names: they are gone
//! when their last process is, however the test ends.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::replica::Place;

/// Set where the test runs inside its namespace.
const INSIDE: &str = "NSQUORUM_INSIDE_NETWORK";
/// Demands namespaces: a machine without the right to make them fails then, instead of saying so.
const DEMANDED: &str = "NSQUORUM_DEMAND_NETWORKS";
const FIRST_PORT: u16 = 4150;

/// Runs `body` in a new network, as this test again in another process. Where the machine has no right to make one it says `NOT RUN` past every capture of
/// output, and the test ends without having shown anything; `NSQUORUM_DEMAND_NETWORKS=1` makes that a failure.
///
/// `test` is the name of the calling test, as on its command line.
///
/// # Panics
/// If the test fails in there, or has to run and cannot.
pub fn in_own_network(test: &str, body: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        return runtime.expect("a runtime").block_on(body);
    }
    if let Err(why) = may_make_networks() {
        // Not a print: those of tests that pass are shown to nobody.
        _ = writeln!(
            std::io::stderr(),
            "\nNOT RUN: {test}: this machine makes no network namespaces: {why:#}"
        );
        assert!(
            std::env::var_os(DEMANDED).is_none(),
            "{DEMANDED} is set, and {test} cannot run: {why:#}"
        );
        return;
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().expect("a test is a program"))
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1")
        .status();
    let status = status.expect("unshare worked a moment ago");
    assert!(status.success(), "{test} failed in its own network: {status}");
}

/// Tries everything that is needed, in a namespace that is thrown away.
fn may_make_networks() -> Result<()> {
    let script = "ip link add name try0 type veth peer name try1 && ip rule add from 10.99.1.2 to 10.99.2.2 blackhole pref 9 \
        && echo 1 > /proc/sys/net/ipv4/ip_forward && nsenter --net=/proc/$$/ns/net true";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()
        .context("there is no unshare")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Nodes in networks of their own. Dropping it ends the networks, once nothing runs in them.
#[derive(Debug)]
pub struct Network {
    /// A process that does nothing in each node's network, so that it outlives the node.
    holders: Vec<Child>,
}

impl Network {
    /// Networks for so many nodes, connected. Only within [`in_own_network`].
    ///
    /// # Errors
    /// If the machine refuses.
    pub fn new(nodes: usize) -> Result<Self> {
        if std::env::var_os(INSIDE).is_none() {
            bail!("this would change the machine's own network");
        }
        run(&["ip", "link", "set", "lo", "up"])?;
        File::options()
            .write(true)
            .open("/proc/sys/net/ipv4/ip_forward")?
            .write_all(b"1")?;
        let mut network = Self { holders: Vec::new() };
        for node in 0..nodes {
            network.add(node)?;
        }
        Ok(network)
    }

    fn add(&mut self, node: usize) -> Result<()> {
        // It ends when this process's end of the pipe does.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 6];
        let mut stdout = holder.stdout.take().context("a pipe was asked for")?;
        std::io::Read::read_exact(&mut stdout, &mut ready).context("the holder of a network ended")?;
        let (process, cable) = (holder.id().to_string(), format!("node{node}"));
        self.holders.push(holder);
        let (router, own) = (format!("10.99.{node}.1"), address(node));
        run(&[
            "ip", "link", "add", "name", &cable, "type", "veth", "peer", "name", "eth0", "netns", &process,
        ])?;
        run(&["ip", "addr", "add", &format!("{router}/24"), "dev", &cable])?;
        run(&["ip", "link", "set", &cable, "up"])?;
        let enter = self.enter(node);
        let inside = |command: &[&str]| {
            let mut all: Vec<&str> = enter.iter().map(String::as_str).collect();
            all.extend(command);
            run(&all)
        };
        inside(&["ip", "link", "set", "lo", "up"])?;
        inside(&["ip", "addr", "add", &format!("{own}/24"), "dev", "eth0"])?;
        inside(&["ip", "link", "set", "eth0", "up"])?;
        inside(&["ip", "route", "add", "default", "via", &router])
    }

    fn enter(&self, node: usize) -> Vec<String> {
        let network = format!("--net=/proc/{}/ns/net", self.holders[node].id());
        vec!["nsenter".to_owned(), network, "--".to_owned()]
    }

    /// Where the nodes run.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let place = |node| Place {
            enter: self.enter(node),
            host: address(node),
            first_port: FIRST_PORT,
        };
        (0..self.holders.len()).map(place).collect()
    }

    /// Nothing that `from` sends reaches `to` any more.
    ///
    /// # Errors
    /// If the machine refuses.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        rule("add", from, to)
    }

    /// It does again.
    ///
    /// # Errors
    /// If it did.
    pub fn mend(&self, from: usize, to: usize) -> Result<()> {
        rule("del", from, to)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            drop(holder.kill());
            drop(holder.wait());
        }
    }
}

fn address(node: usize) -> String {
    format!("10.99.{node}.2")
}

fn rule(verb: &str, from: usize, to: usize) -> Result<()> {
    let (from, to) = (address(from), address(to));
    run(&["ip", "rule", verb, "from", &from, "to", &to, "blackhole", "pref", "9"])
}

fn run(command: &[&str]) -> Result<()> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
