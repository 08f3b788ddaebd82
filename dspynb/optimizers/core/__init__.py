"""What all optimizers share: candidates, the engine, the leaderboard, resuming, interventions."""
