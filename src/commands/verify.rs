//! Who reaches whom, proved with packets.

use super::Context;
use crate::diff::preflight;
use crate::error::{Error, ExitStatus};
use crate::{observe, report, verify};

impl Context<'_> {
    /// `homelab verify`.
    ///
    /// # Errors
    /// What keeps it from proving anything.
    pub async fn verify(&self) -> Result<ExitStatus, Error> {
        let (machine, state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        preflight::engine(&state)?;
        if !state.net_admin {
            return Err(Error::new(
                "not permitted to enter the network of containers",
                "run homelab as root",
            ));
        }
        let matrix = verify::run(self.plan, host, &machine, &state).await?;
        report::matrix(self.report, self.plan, &matrix);
        let differs = matrix.differences().next().is_some();
        Ok(if differs {
            ExitStatus::Different
        } else {
            ExitStatus::Done
        })
    }
}
