//! What is only looked at: what there is beside the plan, and who reaches whom.

use super::Home;
use crate::diff::containers::{self, Selection};
use crate::diff::status::{Differences, Status};
use crate::diff::{self, network, shim};
use crate::error::{DIFFERENT, DONE, Failure};
use crate::input::service_files;
use crate::observe::{self, Lan};
use crate::plan::{Env, Host, Service};
use crate::report;
use crate::state::State;
use crate::system::Machine;
use crate::verify;

impl Home<'_> {
    /// `homelab status`; returns the exit status.
    ///
    /// # Errors
    /// When the kernel, systemd or the Engine cannot be asked.
    pub async fn status(&self) -> Result<u8, Failure> {
        let (machine, mut state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let mut differences = Differences::default();
        if let Some(missing) = state.docker_missing.clone() {
            differences.blocked(missing);
            let up = shim::up(self.plan, host, &state);
            differences.add("homelab shim up", up);
        } else {
            let up = network::up(self.plan, host, &state);
            differences.add("homelab network-up", up);
            for env in &self.plan.envs {
                let isolation = diff::preflight::isolation(self.plan, env, &state);
                let limits = diff::preflight::limits(self.plan, env, &state);
                for missing in [isolation.err(), limits.err()].into_iter().flatten() {
                    differences.blocked(missing);
                }
                self.differences_of(env, host, &machine, &mut state, &mut differences)
                    .await?;
            }
        }
        let conditions = observe::conditions(&machine, &state).await?;
        let status = Status::new(self.plan, host, &state, &conditions, differences);
        report::status(self.report, &status);
        let differs = !status.differences.is_empty();
        Ok(if differs { DIFFERENT } else { DONE })
    }

    /// What env-up would do in an environment.
    async fn differences_of(
        &self,
        env: &Env,
        host: &Host,
        machine: &Machine,
        state: &mut State,
        differences: &mut Differences,
    ) -> Result<(), Failure> {
        let command = format!("homelab env-up --env {}", env.name);
        let selection = Selection::whole(self.plan, env, &host.name);
        let planned = selection.with_dependencies();
        let mut services: Vec<Service> = planned.into_iter().cloned().collect();
        if let Err(problems) = service_files::complete(env, &mut services) {
            for problem in problems {
                let hint = problem.hint.unwrap_or_default();
                differences.differ("", problem.what, hint);
            }
            return Ok(());
        }
        observe::services(machine, self.plan, env, &services, Lan::LeftAlone, state).await?;
        differences.add(&command, containers::up(&selection, &services, state));
        for (_, orphan) in selection.orphans(state) {
            differences.differ(
                &orphan.name,
                format!(
                    "container {}: the plan does not have it on this host",
                    orphan.name
                ),
                format!("`{command} --remove-orphans`"),
            );
        }
        Ok(())
    }

    /// `homelab verify`; returns the exit status.
    ///
    /// # Errors
    /// What keeps it from proving anything.
    pub async fn verify(&self) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        diff::preflight::engine(&state)?;
        if !state.net_admin {
            return Err(Failure::new(
                "not permitted to enter the network of containers",
                "run homelab as root",
            ));
        }
        let matrix = verify::run(self.plan, host, &machine, &state).await?;
        report::matrix(self.report, self.plan, &matrix);
        let differs = matrix.differences().next().is_some();
        Ok(if differs { DIFFERENT } else { DONE })
    }
}
