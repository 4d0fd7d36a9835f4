"""What training computes of each customer: recency, frequency, money, stage, forecast, tastes."""
