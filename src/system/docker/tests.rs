//! Against an Engine that stands still, with a clock that jumps to the next limit whenever nothing else happens.

use super::*;
use crate::diff::step::{ContainerAction, ImageAction, NetworkAction, VolumeAction};
use crate::plan::{ComposeVolume, DependencyCondition};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::time::Instant;

/// Listens for calls, says this of each, and then nothing more; the connections stay open.
struct Still {
    folder: tempfile::TempDir,
}

impl Still {
    fn says(answer: &'static str) -> Self {
        Self::answers(move |_| answer.to_owned())
    }

    fn answers(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| unreachable!("{error}"));
        let listener = UnixListener::bind(folder.path().join("sock"));
        let listener = listener.unwrap_or_else(|error| unreachable!("{error}"));
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut call = [0; 4096];
                let _ = client.read(&mut call).await;
                let answer = answer(&String::from_utf8_lossy(&call));
                let _ = client.write_all(answer.as_bytes()).await;
                held.push(client);
            }
        });
        Self { folder }
    }

    fn engine(&self) -> Engine {
        let address = transport::Address::Unix(self.folder.path().join("sock"));
        let client = transport::client(address);
        Engine {
            client: client.unwrap_or_else(|error| unreachable!("{error}")),
            version: String::new(),
            api: Api::OLDEST,
            ids: Arc::default(),
        }
    }
}

/// Nothing, and an answer that stops in its head and in its text.
const STOPS: [&str; 3] = [
    "",
    "HTTP/1.1 200 OK\r\nContent-",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"Id\"",
];

/// What a call came to, and after how many seconds.
async fn timed<T>(call: impl Future<Output = Result<T, Error>>) -> (u64, String) {
    let begun = Instant::now();
    let limit = Duration::from_secs(24 * 60 * 60);
    let result = tokio::time::timeout(limit, Box::pin(call)).await;
    let said = match result {
        Ok(Ok(_)) => "done".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "never ended".to_owned(),
    };
    (begun.elapsed().as_secs(), said)
}

#[tokio::test(start_paused = true)]
async fn a_question_has_thirty_seconds() {
    for answer in STOPS {
        let still = Still::says(answer);
        let engine = still.engine();
        let ends = |what| {
            (
                30,
                format!("the Engine did not {what}: it did not answer in time"),
            )
        };
        assert_eq!(timed(engine.networks()).await, ends("list the networks"));
        assert_eq!(
            timed(engine.containers()).await,
            ends("list the containers")
        );
        assert_eq!(timed(engine.volumes()).await, ends("list the volumes"));
        assert_eq!(
            timed(engine.cgroup_driver()).await,
            ends("tell about itself")
        );
        assert_eq!(
            timed(engine.process("x")).await,
            ends("inspect container `x`")
        );
        let tail = Tail::default();
        let log = engine.logs("x", &tail, |_| ControlFlow::Continue(()));
        assert_eq!(timed(log).await, ends("show the log of container `x`"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_has_five_minutes() {
    let name = || "x".to_owned();
    for answer in STOPS {
        let still = Still::says(answer);
        let engine = still.engine();
        let network = NetworkAction::Remove {
            name: name(),
            id: name(),
        };
        let ends = |what| {
            (
                300,
                format!("the Engine did not {what}: it did not answer in time"),
            )
        };
        // Such an answer to what has none is one.
        if !answer.ends_with("\"Id\"") {
            let result = timed(engine.carry_out_network(&network)).await;
            assert_eq!(result, ends("remove network `x`"));
            let acts = [
                (
                    ContainerAction::Unpause { name: name() },
                    "unpause container `x`",
                ),
                (
                    ContainerAction::Start { name: name() },
                    "start container `x`",
                ),
                (
                    ContainerAction::Remove { name: name() },
                    "remove container `x`",
                ),
            ];
            for (act, what) in acts {
                assert_eq!(timed(engine.carry_out_container(&act)).await, ends(what));
            }
            let stop = ContainerAction::Stop { name: name() };
            let (seconds, said) = timed(engine.carry_out_container(&stop)).await;
            assert_eq!(
                (seconds, said.as_str()),
                (
                    100,
                    "the Engine did not stop container `x`: it did not answer in time"
                )
            );
        }
        let volume = VolumeAction::Create(Box::new(ComposeVolume {
            name: name(),
            ..ComposeVolume::default()
        }));
        assert_eq!(
            timed(engine.carry_out_volume(&volume)).await,
            ends("make volume `x`")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_has_five_minutes_without_news() {
    let news = "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"Pulling fs layer\",\"id\":\"a\"}\r\n";
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-", news] {
        let still = Still::says(answer);
        let pull = ImageAction::Pull {
            image: "x".to_owned(),
            platform: None,
        };
        let engine = still.engine();
        let mut told = 0;
        let result = timed(engine.carry_out_image(&pull, |_| told += 1)).await;
        let said = "image `x` cannot be pulled: the Engine told nothing new for 5 minutes";
        assert_eq!(result, (300, said.to_owned()));
        assert_eq!(told, usize::from(answer == news));
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_container_sees_that_the_engine_stands_still() {
    let still = Still::says("");
    let engine = still.engine();
    let ends = |seconds| {
        (
            seconds,
            "the Engine did not inspect container `x`: it did not answer in time".to_owned(),
        )
    };
    let completed = engine.wait_for("x", DependencyCondition::Completed);
    assert_eq!(timed(completed).await, ends(60));
    let healthy = engine.wait_for("x", DependencyCondition::Healthy);
    assert_eq!(timed(healthy).await, ends(30));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_container_does_so_when_the_engine_tells_no_more() {
    let still = Still::answers(|call| {
        let inspected = r#"{"State":{"Running":true,"Health":{"Status":"starting"}}}"#;
        let text = if call.contains("/events") {
            ""
        } else {
            inspected
        };
        let length = text.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}")
    });
    let engine = still.engine();
    let wait = engine.wait_for("x", DependencyCondition::Healthy);
    let waited = tokio::time::timeout(Duration::from_secs(10), Box::pin(wait)).await;
    assert!(waited.is_err(), "{waited:?}");
}
