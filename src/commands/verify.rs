//! Who reaches whom, proved with packets.

use super::Context;
use crate::diff::{lan, preflight, slices, ways};
use crate::error::{Diagnostic, Error, ExitStatus};
use crate::state::State;
use crate::{observe, report, verify};

impl Context<'_> {
    /// `homelab verify`.
    ///
    /// # Errors
    /// What keeps it from proving anything.
    pub async fn verify(&self) -> Result<ExitStatus, Error> {
        let (machine, state) = observe::machine_and_filters(self.plan, &self.plan.envs).await?;
        let host = self.host(&state)?;
        preflight::engine(&state)?;
        if !state.net_admin {
            return Err(Error::new(
                "not permitted to enter the network of containers",
                "run homelab as root",
            ));
        }
        preflight::parent(self.plan, host, &state)?;
        self.warn_of_ways_out(host, &state);
        let answers = observe::duplicates(self.plan, host, &state);
        let matrix = verify::run(self.plan, host, &machine, &state);
        let (answered, matrix) = tokio::try_join!(answers, matrix)?;
        let ways = observe::ways(&machine.netlink, self.plan, &state).await?;
        let state = State {
            answered,
            ways,
            ..state
        };
        let duplicates = lan::duplicates(self.plan, host, &state);
        let duplicates = duplicates.map(|(_, diagnostic)| diagnostic);
        let not_there = lan::not_there(self.plan, host, &state);
        let astray = ways::astray(self.plan, host, &state);
        let open = slices::open(self.plan, &state).into_iter();
        let beside = duplicates.chain(not_there).chain(astray).chain(open);
        let beside: Vec<Diagnostic> = beside.collect();
        let differs = matrix.differences().next().is_some() || !beside.is_empty();
        report::matrix(self.report, self.plan, &matrix, &beside);
        Ok(if differs {
            ExitStatus::Different
        } else {
            ExitStatus::Done
        })
    }
}
