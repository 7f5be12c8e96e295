"""What a recipe trains: phases, rows, schedules and starting weights; without Composer."""
