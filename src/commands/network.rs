//! The shim, the networks and the slices: up and down.

use super::Context;
use crate::cli::ChangeArgs;
use crate::diff::Request;
use crate::error::{Error, ExitStatus};
use crate::observe;
use crate::plan::Host;
use std::net::Ipv4Addr;

impl Context<'_> {
    /// `homelab network-up`.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn network_up(&self, args: &ChangeArgs) -> Result<ExitStatus, Error> {
        let _turn = self.turn(args).await?;
        let (machine, mut state) = observe::machine_and_filters(self.plan, &self.plan.envs).await?;
        let host = self.host(&state)?;
        self.check_the_units_file(args, &state)?;
        let paths = self.unit_paths().ok();
        let unit = paths.as_ref().map(|paths| paths.unit(host));
        let request = Request::NetworkUp(host, unit);
        state.answered = self.ask_for_shims(args, host, &request, &state).await?;
        self.converge(args, &request, (&machine, &state)).await
    }

    /// `homelab network-down`.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn network_down(&self, args: &ChangeArgs) -> Result<ExitStatus, Error> {
        let _turn = self.turn(args).await?;
        let (machine, state) = observe::machine(self.plan).await?;
        // Whoever was taken out of the plan can still be cleaned up.
        let nobody = Host {
            name: String::new(),
            address: Ipv4Addr::UNSPECIFIED,
            shim: Ipv4Addr::UNSPECIFIED,
            parent: None,
            primary: false,
        };
        let request = Request::NetworkDown(self.host(&state).unwrap_or(&nobody));
        self.converge(args, &request, (&machine, &state)).await
    }
}
