//! Imports of small data paths into something that answers OK to everything.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::{ImportArgs, run};
use crate::exit::Exit;

fn record(body: &str) -> Vec<u8> {
    let length = i32::try_from(26 + body.len()).unwrap().to_be_bytes();
    [&length[..], &[0; 10], b"0d3a5c7e9f1b2c4d", body.as_bytes()].concat()
}

/// A data path with one topic, whose own queue has these files and a count of messages that is right.
struct Scene {
    directory: tempfile::TempDir,
    address: String,
    /// Bodies of messages that were published.
    stored: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    async fn new(depth: u64, files: &[&[u8]]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let topics = r#"{"topics":[{"name":"orders","paused":false,"channels":[]}]}"#;
        fs::write(directory.path().join("nsqd.dat"), topics).unwrap();
        for (number, bytes) in files.iter().enumerate() {
            fs::write(
                directory.path().join(format!("orders.diskqueue.{number:06}.dat")),
                bytes,
            )
            .unwrap();
        }
        let metadata = format!("{depth}\n0,0\n{},{}\n", files.len() - 1, files.last().unwrap().len());
        fs::write(directory.path().join("orders.diskqueue.meta.dat"), metadata).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scene = Self {
            directory,
            address: listener.local_addr().unwrap().to_string(),
            stored: Arc::default(),
            requests: Arc::default(),
        };
        tokio::spawn(serve(listener, Arc::clone(&scene.stored), Arc::clone(&scene.requests)));
        scene
    }

    async fn import(&self, max_msg_size: u32) -> anyhow::Result<Exit> {
        run(ImportArgs {
            directory: self.directory.path().to_owned(),
            nsqd_http_address: vec![self.address.clone()],
            dry_run: false,
            max_msg_size,
            retry_for: Duration::from_secs(60),
        })
        .await
    }

    fn take_stored(&self) -> Vec<String> {
        std::mem::take(&mut *self.stored.lock())
    }
}

async fn serve(listener: TcpListener, stored: Arc<Mutex<Vec<String>>>, requests: Arc<Mutex<Vec<String>>>) {
    loop {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        let (mut first, mut length) = (String::new(), 0);
        stream.read_line(&mut first).await.unwrap();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if let Some(found) = line.strip_prefix("Content-Length: ") {
                length = found.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let mut rest = body.get(4..).unwrap_or_default();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (message, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            stored.lock().push(String::from_utf8(message.to_vec()).unwrap());
            rest = after;
        }
        requests.lock().push(first);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nOK").await.unwrap();
    }
}

#[tokio::test]
async fn damage_decides_the_exit_code_also_of_an_import_that_goes_on_behind_it() {
    let scene = Scene::new(3, &[&[record("a"), vec![0; 40]].concat(), &record("b")]).await;
    assert_eq!(scene.import(100).await.unwrap(), Exit::ImpossibleData);
    assert_eq!(scene.take_stored(), ["a", "b"]);
    assert_eq!(scene.import(100).await.unwrap(), Exit::ImpossibleData, "said again");
    assert!(scene.take_stored().is_empty(), "and nothing is stored again");
}

#[tokio::test]
async fn messages_that_are_missing_are_damage() {
    let scene = Scene::new(2, &[&record("a")]).await;
    assert_eq!(scene.import(100).await.unwrap(), Exit::ImpossibleData);
    let scene = Scene::new(1, &[&record("a")]).await;
    assert_eq!(scene.import(100).await.unwrap(), Exit::Ok);
}

#[tokio::test]
async fn an_import_that_cannot_note_how_far_it_is_sends_nothing() {
    let scene = Scene::new(1, &[&record("a")]).await;
    fs::create_dir(scene.directory.path().join("nsquorum-import.json.new")).unwrap();
    scene.import(100).await.unwrap_err();
    assert!(scene.requests.lock().is_empty());
}

#[tokio::test]
async fn each_request_is_noted_by_a_line_and_a_torn_one_counts_for_nothing() {
    let messages: Vec<String> = (0..2500).map(|number| format!("m{number}")).collect();
    let file: Vec<u8> = messages.iter().flat_map(|body| record(body)).collect();
    let scene = Scene::new(2500, &[&file]).await;
    assert_eq!(scene.import(100).await.unwrap(), Exit::Ok);
    assert_eq!(scene.take_stored(), messages);
    let note = scene.directory.path().join("nsquorum-import.json");
    let lines = fs::read_to_string(&note).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");

    fs::write(&note, &lines[..lines.len() - 2]).unwrap();
    assert_eq!(scene.import(100).await.unwrap(), Exit::Ok);
    assert_eq!(scene.take_stored(), messages[2000..], "the last request alone");
    let lines = fs::read_to_string(&note).unwrap();
    assert_eq!(lines.lines().count(), 2, "what was before became one line: {lines}");
    assert!(lines.contains("\"messages\":2500"), "{lines}");

    fs::write(&note, lines.replacen('{', "", 1)).unwrap();
    scene.requests.lock().clear();
    scene.import(100).await.unwrap_err();
    assert!(scene.requests.lock().is_empty(), "damage that is not a torn end");
}

#[tokio::test]
async fn an_import_that_met_a_message_too_long_goes_on_with_it() {
    let long = "x".repeat(101);
    let scene = Scene::new(3, &[&[record("a"), record(&long), record("b")].concat()]).await;
    let refused = scene.import(100).await.unwrap_err();
    assert!(format!("{refused:#}").contains("--max-msg-size"), "{refused:#}");
    assert_eq!(scene.import(101).await.unwrap(), Exit::Ok);
    assert_eq!(scene.take_stored(), ["a", &long, "b"], "each once");
}
