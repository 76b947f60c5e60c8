//! What `up` prints once all nodes serve.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::plan::Plan;

/// Prints the page.
pub(super) fn print(plan: &Plan, dir: &Path) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text(plan, dir).as_bytes())?;
    Ok(())
}

fn text(plan: &Plan, dir: &Path) -> String {
    let first = &plan.nodes[0];
    let last = plan.nodes.last().expect("a plan has a node");
    let program = &first.argv[0];
    let (dir, tcp, http, lookup) = (dir.display(), &first.tcp, &first.http, &first.lookup_http);
    let mut text = match plan.nodes.len() {
        1 => "\nnsquorum is running: one node. Any NSQ client can use it as it is.\n\n".to_owned(),
        nodes => format!(
            "\nnsquorum is running: {nodes} nodes, one queue. Any NSQ client can use any of them as it is;\n\
             {} of them may die, and nothing that was answered OK is lost.\n\n",
            (nodes - 1) / 2
        ),
    };
    text.push_str("           nsqd TCP          nsqd HTTP         lookup HTTP\n");
    for node in &plan.nodes {
        // Writing to a String does not fail.
        _ = writeln!(
            text,
            "  {}   {:<17} {:<17} {}",
            node.name, node.tcp, node.http, node.lookup_http
        );
    }
    let last_tcp = &last.tcp;
    text.push_str(&format!(
        "
Try, in another terminal:

  {program} tail greetings --channel me --nsqd-tcp-address {last_tcp}     # prints what arrives; leave it running
  {program} pub greetings 'hello' --nsqd-tcp-address {tcp}
  curl -d 'hello again' 'http://{http}/pub?topic=greetings'
  curl 'http://{lookup}/lookup?topic=greetings'
  curl 'http://{http}/stats?format=json'
  examples/invoices/run {tcp}       # invoices through unchanged pynsq and nsqjs clients, added up at the end

Data, logs and cluster.json (addresses, pids, command lines): {dir}
Kill a node with kill -9: it is started again, and nothing that was answered OK is gone. Ctrl-C stops all cleanly.

"
    ));
    text
}
