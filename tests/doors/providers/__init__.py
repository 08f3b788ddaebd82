"""The doors, one module for each provider. Importing a module registers its doors."""
