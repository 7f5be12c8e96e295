"""A recipe resolved: phases, data streams, schedules, phase boundaries and exports, without Composer."""
