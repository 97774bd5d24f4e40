//! Ctrl-C and SIGTERM: every phase of a command ends within a second.

use crate::error::{Error, ExitStatus};
use crate::report::Report;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long a command that changes something has to end in good order; every command can be killed anywhere and run again.
const CUT_OFF: Duration = Duration::from_millis(950);

/// Whether somebody pressed Ctrl-C or ended the process politely.
#[derive(Clone)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on, and cuts a command off that does not end by itself; one that only looks, at once.
    pub fn listen(report: Report, changes: bool) -> Self {
        let (raise, raised) = watch::channel(false);
        tokio::spawn(async move {
            either_signal().await;
            // Nobody listens where there is nothing to end in good order.
            let _ = raise.send(true);
            if changes {
                tokio::time::sleep(CUT_OFF).await;
                report.error(&interrupted());
            }
            std::process::exit(ExitStatus::Interrupted.code().into());
        });
        Self(raised)
    }

    /// Over when it was raised.
    pub async fn raised(&self) {
        if self.0.clone().wait_for(|raised| *raised).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What comes of `work`, unless it is interrupted before.
    ///
    /// # Errors
    /// That it was interrupted.
    pub async fn or<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.raised() => Err(interrupted()),
        }
    }
}

fn interrupted() -> Error {
    Error {
        status: ExitStatus::Interrupted,
        ..Error::new(
            "interrupted",
            "run the command again; it goes on where it stopped",
        )
    }
}

async fn either_signal() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
