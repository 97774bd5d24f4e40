//! The steps that wait until the services that another one depends on are as it wants them. Pure.

use super::Up;
use crate::diff::StepId;
use crate::diff::step::ContainerAction;
use crate::plan::{DependencyCondition, Service};
use crate::state::Health;

impl Up<'_> {
    /// The steps after which the services that one depends on are as it wants them, and those that only have to be over.
    pub(super) fn wait_for_dependencies(
        &mut self,
        service: &Service,
    ) -> (Vec<StepId>, Vec<StepId>) {
        let (mut after, mut over) = (Vec::new(), Vec::new());
        if self.selection.no_deps {
            return (after, over);
        }
        let others = self.selection.env.services.iter();
        let others: Vec<&Service> = others.filter(|other| other.host == service.host).collect();
        for dependency in &service.depends_on {
            let begun = self
                .begun
                .get(dependency.service.get_ref())
                .cloned()
                .unwrap_or_default();
            let steps = if dependency.condition == DependencyCondition::Started {
                begun
            } else {
                let all = others
                    .iter()
                    .filter(|other| other.name == *dependency.service.get_ref());
                let instances: Vec<String> = all
                    .filter(|other| {
                        !self.is_ready(other, dependency.condition) || !begun.is_empty()
                    })
                    .map(|other| other.container())
                    .collect();
                let wait = |name: String| {
                    self.wait_for(name, dependency.condition, dependency.is_required, &begun)
                };
                instances.into_iter().map(wait).collect()
            };
            if dependency.is_required {
                after.extend(steps);
            } else {
                over.extend(steps);
            }
        }
        (after, over)
    }

    /// Whether a container that is left alone is ready already.
    fn is_ready(&self, service: &Service, condition: DependencyCondition) -> bool {
        let Some(container) = self.container(service) else {
            // It is not in this run: nobody started it, and nobody will.
            return false;
        };
        match condition {
            DependencyCondition::Started => true,
            DependencyCondition::Healthy => container.health == Some(Health::Healthy),
            DependencyCondition::Completed => {
                container.state == "exited" && container.exit_code == Some(0)
            }
        }
    }

    fn wait_for(
        &mut self,
        name: String,
        condition: DependencyCondition,
        is_required: bool,
        begun: &[StepId],
    ) -> StepId {
        let key = (name.clone(), condition);
        if let Some(step) = self.waits.get(&key) {
            return *step;
        }
        let action = ContainerAction::WaitFor {
            name,
            condition,
            is_required,
        };
        let step = self.diff.push(action, "others depend on it", begun);
        self.waits.insert(key, step);
        step
    }
}
